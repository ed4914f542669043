"""The parameters of a group: a tree of arrays, or variables of Flax NNX."""

import operator
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from adamax_optax import _nnx
from adamax_optax._arrays import is_array

# A parameter's path in the tree, such as ("['conv1']", "['kernel']").
Path = tuple[str, ...]


class Parameters(Protocol):
    """Access to the parameters of a group.

    Attributes:
      paths: The path of each parameter, in order.
    """

    paths: list[Path]

    def read(self, params: Any) -> list[Any]:
        """Return the arrays in the group's `params`; raise if the shapes changed."""

    def write(self, params: Any, arrays: Sequence[Any]) -> Any:
        """Return the group's `params` with new arrays."""

    def owned(self, params: Any) -> list[Any]:
        """Return the objects that no other group may have."""


class ArrayTree:
    """A tree of arrays, rebuilt at each step because JAX arrays are immutable."""

    def __init__(self, leaves: dict[Path, Any], treedef: Any) -> None:
        self.paths = list(leaves)
        self._treedef = treedef
        self._shapes = _checked_shapes(self.paths, leaves.values())
        self._known: Sequence[Any] = ()

    def read(self, params: Any) -> list[Any]:
        return _checked(self.owned(params), self._known, self.paths, self._shapes)

    def write(self, params: Any, arrays: Sequence[Any]) -> Any:
        del params
        self._known = arrays
        return jax.tree.unflatten(self._treedef, arrays)

    def owned(self, params: Any) -> list[Any]:
        try:
            return self._treedef.flatten_up_to(params)
        except ValueError as error:
            raise ValueError(
                f"The params of a group must keep their structure: {error}"
            ) from error


class Variables:
    """NNX variables, updated in place.

    A variable that appears in several places is one parameter, at the first of them, as
    in `nnx.state` and `nnx.grad`.
    """

    def __init__(self, params: Any, nodes: dict[Path, Any]) -> None:
        places: dict[int, tuple[Path, Any]] = {}
        for prefix, node in nodes.items():
            for path, variable in _nnx.variables_of(node):
                places.setdefault(id(variable), (prefix + _names(path), variable))
        self._params = params
        self.paths = [path for path, _ in places.values()]
        self._variables = [variable for _, variable in places.values()]
        self._shapes = _checked_shapes(self.paths, map(_nnx.get, self._variables))
        self._known: Sequence[Any] = ()

    def read(self, params: Any) -> list[Any]:
        if params is not self._params:
            raise ValueError(
                "The modules and variables of a group cannot be exchanged. Put new "
                "values into them instead, for example with nnx.update(module, state)."
            )
        arrays = [_nnx.get(variable) for variable in self._variables]
        return _checked(arrays, self._known, self.paths, self._shapes)

    def write(self, params: Any, arrays: Sequence[Any]) -> Any:
        self._known = arrays
        for variable, array in zip(self._variables, arrays, strict=True):
            _nnx.put(variable, array)
        return params

    def owned(self, params: Any) -> list[Any]:
        del params
        return self._variables


def find(params: Any) -> Parameters:
    """Return access to the parameters in a tree of arrays or of NNX objects."""
    if isinstance(params, Iterator):
        raise ValueError(
            "params must be a list or another tree, not an iterator, which can be read "
            f"only once; got {params!r}."
        )
    leaves, treedef = flatten(params)
    nodes = {path: leaf for path, leaf in leaves.items() if _nnx.is_node(leaf)}
    if nodes and len(nodes) < len(leaves):
        other = next(path for path in leaves if path not in nodes)
        raise ValueError(
            "The params of a group must be all arrays or all of NNX, but "
            f"{label(next(iter(nodes)))} is of NNX and {label(other)} is not. Put "
            "them into two groups."
        )
    found = Variables(params, nodes) if nodes else ArrayTree(leaves, treedef)
    if not found.paths:
        raise ValueError(f"params must hold at least one parameter, got {params!r}.")
    return found


def flatten(tree: Any, *, with_none: bool = False) -> tuple[dict[Path, Any], Any]:
    """Return a tree's leaves, by path, and its structure.

    NNX modules and variables are leaves; so is `None` if `with_none`.
    """

    def is_leaf(x: Any) -> bool:
        return _nnx.is_node(x) or (with_none and x is None)

    found, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)
    return {_names(path): leaf for path, leaf in found}, treedef


def label(path: Path) -> str:
    """Return a parameter's name for messages, such as ``params['conv1']['kernel']``."""
    return "params" + "".join(path)


def strongly_typed(array: Any) -> Any:
    """Return an array without JAX's weak type.

    `jnp.full` and `jnp.asarray` make weakly typed arrays from Python numbers. A step
    returns strongly typed ones, so the second step would be compiled again.
    """
    weak = getattr(array, "weak_type", False)
    return jnp.asarray(array, array.dtype) if weak else array


def is_inexact(array: Any) -> bool:
    return jnp.issubdtype(array.dtype, jnp.inexact)


def _names(path: Any) -> Path:
    return tuple(jax.tree_util.keystr((key,)) for key in path)


def _checked_shapes(paths, arrays):
    shapes = []
    for path, array in zip(paths, arrays, strict=True):
        if not is_array(array) or not is_inexact(array):
            raise ValueError(
                "Parameters must be floating or complex arrays of JAX or NumPy, in a "
                f"list, a dict or another tree, but {label(path)} is {array!r}."
            )
        shapes.append(array.shape)
    return shapes


def _checked(arrays, known, paths, shapes):
    """Return the arrays strongly typed, after checking any but the `known` ones."""
    if len(arrays) == len(known) and all(map(operator.is_, arrays, known)):
        return arrays
    for path, shape, array in zip(paths, shapes, arrays, strict=True):
        if getattr(array, "shape", None) != shape:
            raise ValueError(
                f"{label(path)} must stay an array of shape {shape}, got {array!r}."
            )
    return list(map(strongly_typed, arrays))
