"""The parameters of a group: a tree of arrays, or variables of Flax NNX."""

from collections.abc import ItemsView, Iterator, Sequence, ValuesView
from typing import Any

import jax
import jax.numpy as jnp

from adamax_optax import _nnx
from adamax_optax._arrays import is_array
from adamax_optax.compat._plan import sharding_of

# A parameter's path in the tree, such as ("['conv1']", "['kernel']").
Path = tuple[str, ...]


class ArrayTree:
    """A tree of arrays, rebuilt at each step because JAX arrays are immutable.

    Attributes:
      paths: The path of each parameter, in order.
      shapes: The shape of each.
      owners: For each, an NNX variable and the attribute in which a step stores its
        new array; `None` if the array must be put there by `write`.
    """

    def __init__(self, leaves: dict[Path, Any], treedef: Any) -> None:
        self.paths = list(leaves)
        self.shapes = _checked_shapes(self.paths, leaves.values())
        self.owners: list[tuple[Any, str] | None] = [None] * len(leaves)
        self._treedef = treedef

    def read(self, params: Any) -> list[Any]:
        """Return the arrays in the group's `params`, which must have its structure."""
        try:
            return self._treedef.flatten_up_to(params)
        except ValueError as error:
            raise ValueError(
                f"The params of a group must keep their structure: {error}"
            ) from error

    def write(self, params: Any, arrays: Sequence[Any]) -> Any:
        """Return the group's `params` with new arrays for those without an owner."""
        return jax.tree.unflatten(self._treedef, arrays)

    def owned(self, params: Any) -> list[Any]:
        """Return the objects that no other group may have."""
        return self.read(params)


class Variables:
    """NNX variables, updated in place, with the attributes and methods of `ArrayTree`.

    A variable that appears in several places is one parameter, at the first of them, as
    in `nnx.state` and `nnx.grad`.
    """

    def __init__(self, params: Any, nodes: dict[Path, Any]) -> None:
        places: dict[int, tuple[Path, Any]] = {}
        for prefix, node in nodes.items():
            for path, variable in _nnx.variables_of(node):
                place = prefix + names(path), variable
                places.setdefault(id(variable), place)
        self._params = params
        self._structure = _nnx.Structure(params)
        self.paths = [path for path, _ in places.values()]
        self._variables = [variable for _, variable in places.values()]
        self.shapes = _checked_shapes(self.paths, map(_nnx.get, self._variables))
        slots = map(_nnx.slot_of, self._variables)
        self.owners = [
            None if slot is None else (variable, slot)
            for variable, slot in zip(self._variables, slots, strict=True)
        ]

    def read(self, params: Any) -> list[Any]:
        if params is not self._params:
            raise ValueError(
                "The modules and variables of a group cannot be replaced by others. "
                "Put new values into them instead, for example with "
                "nnx.update(module, state), or put a new group into param_groups."
            )
        self._structure.check()
        return [
            _nnx.get(variable) if owner is None else getattr(*owner)
            for variable, owner in zip(self._variables, self.owners, strict=True)
        ]

    def write(self, params: Any, arrays: Sequence[Any]) -> Any:
        rest = iter(arrays)
        for variable, owner in zip(self._variables, self.owners, strict=True):
            if owner is None:
                _nnx.put(variable, next(rest))
        return params

    def owned(self, params: Any) -> list[Any]:
        return self._variables


Parameters = ArrayTree | Variables


def listed(params: Any) -> tuple[Any, dict[str, Any]]:
    """Return a group's `params` as a tree, and its entry `"param_names"`, if any.

    A generator, `filter(...)` or `dict.values()` becomes a list. Pairs of a name and a
    parameter, as PyTorch's `named_parameters()` gives, become a list and the names. A
    list is copied, as in PyTorch: the caller may change it.
    """
    if isinstance(params, Iterator | ValuesView | ItemsView) or type(params) is list:
        params = list(params)
    pairs = isinstance(params, list | tuple) and all(
        isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)
        for pair in params
    )
    if not pairs or not params:
        return params, {}
    names, arrays = zip(*params, strict=True)
    return list(arrays), {"param_names": list(names)}


def find(params: Any) -> Parameters:
    """Return access to the parameters in a tree of arrays or of NNX objects."""
    leaves, treedef = flatten(params)
    nodes = {path: leaf for path, leaf in leaves.items() if _nnx.is_node(leaf)}
    if nodes and len(nodes) < len(leaves):
        other = next(path for path in leaves if path not in nodes)
        raise ValueError(
            "The params of a group must be all arrays or all of NNX, but "
            f"{label(next(iter(nodes)))} is of NNX and {label(other)} is not. Put "
            "them into two groups."
        )
    return Variables(params, nodes) if nodes else ArrayTree(leaves, treedef)


def with_copies(params: Any) -> Any:
    """Return a group's `params` with its arrays copied; NNX objects stay the same."""
    found = find(params)
    arrays = zip(found.read(params), found.owners, strict=True)
    return found.write(params, [jnp.copy(x) for x, owner in arrays if owner is None])


def check_copied(params: Any, memo: dict[int, Any]) -> None:
    """Find the copies that `copy.deepcopy` made of the NNX objects in `params`.

    Flax copies a module without telling `copy.deepcopy` about its parts. This adds them
    to the `memo`.

    Raises:
      ValueError: If an object was not copied before: it would be copied a second time
        with its module.
    """
    leaves, _ = flatten(params)
    nodes = [(path, leaf) for path, leaf in leaves.items() if _nnx.is_node(leaf)]
    if any(id(node) not in memo for _, node in nodes):
        for module in list(memo.get(id(memo), ())):
            if _nnx.is_node(module):
                memo.update(_nnx.parts(module, memo[id(module)]))
    for path, node in nodes:
        if id(node) not in memo:
            raise ValueError(
                f"{label(path)} must be copied before its optimizer, or the copy would "
                "not train the copy of its module. Copy both in this order: net, "
                "optimizer = copy.deepcopy((net, optimizer))."
            )


def flatten(tree: Any, *, with_none: bool = False) -> tuple[dict[Path, Any], Any]:
    """Return a tree's leaves, by path, and its structure.

    NNX modules and variables are leaves; so is `None` if `with_none`.
    """

    def is_leaf(x: Any) -> bool:
        return _nnx.is_node(x) or (with_none and x is None)

    found, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)
    return {names(path): leaf for path, leaf in found}, treedef


def label(path: Path) -> str:
    """Return a parameter's name for messages, such as ``params['conv1']['kernel']``."""
    return "params" + "".join(path)


def name(path: Path) -> str:
    """Return a parameter's name, as `interop.leaf_names` gives it for its group."""
    return ".".join(part.strip(".[]'\"") for part in path)


def strongly_typed(array: Any) -> Any:
    """Return an array without JAX's weak type.

    `jnp.full` and `jnp.asarray` make weakly typed arrays from Python numbers. A step
    returns strongly typed ones, so the second step would be compiled again.
    """
    weak = getattr(array, "weak_type", False)
    return jnp.asarray(array, array.dtype) if weak else array


def placed_like(param: Any, gradient: Any) -> Any:
    """Return a parameter that JAX may place, on the mesh of its gradient if it has one.

    A step would put it there. Before that, it might share an array with others, whose
    gradients are sharded in other ways.
    """
    sharding = sharding_of(gradient)
    if sharding is None or getattr(param, "committed", False):
        return param
    return jax.device_put(param, sharding)


def is_inexact(array: Any) -> bool:
    return jnp.issubdtype(array.dtype, jnp.inexact)


def names(path: Any) -> Path:
    """Return the names of the keys of a path in a tree."""
    return tuple(jax.tree_util.keystr((key,)) for key in path)


def _checked_shapes(paths, arrays):
    shapes = []
    for path, array in zip(paths, arrays, strict=True):
        if isinstance(array, jax.core.Tracer):
            raise ValueError(
                f"Parameters must be arrays with values, but {label(path)} is {array}. "
                "Make the optimizer outside of jit, grad and scan."
            )
        if not is_array(array) or not is_inexact(array):
            raise ValueError(
                "Parameters must be floating or complex JAX or NumPy arrays, in a "
                f"list, a dict or another tree, but {label(path)} is {array!r}."
            )
        shapes.append(array.shape)
    return shapes


def check(array: Any, shape: tuple[int, ...], path: Path) -> None:
    """Raise `ValueError` unless a parameter is still an array of this shape."""
    if not is_array(array) or not is_inexact(array) or array.shape != shape:
        raise ValueError(
            f"{label(path)} must stay an array of shape {shape} and of floating or "
            f"complex numbers, got {array!r}."
        )
