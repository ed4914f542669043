"""The parameters of a group: a tree of arrays, or the variables of Flax NNX."""

import operator
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from adamax_optax import _nnx

# Where a parameter stands in the tree, such as ("['conv1']", "['kernel']").
Path = tuple[str, ...]


class Parameters(Protocol):
    """Where the parameters of a group are.

    Attributes:
      paths: The path of each parameter, in order.
    """

    paths: list[Path]

    def read(self, params: Any) -> list[Any]:
        """Return the current arrays of the group's `params`.

        Raises:
          ValueError: If the user has put something there that does not fit.
        """

    def write(self, params: Any, arrays: Sequence[Any]) -> Any:
        """Return the group's `params` with new arrays."""

    def owned(self, params: Any) -> list[Any]:
        """Return the objects that no other group may have."""


class ArrayTree:
    """A tree of arrays, made anew at each step, as JAX's arrays cannot be changed."""

    def __init__(self, leaves: dict[Path, Any], treedef: Any) -> None:
        """Take a tree's leaves, by path, and its structure."""
        self.paths = list(leaves)
        self._treedef = treedef
        self._shapes = _checked_shapes(self.paths, leaves.values())
        self._known: Sequence[Any] = ()

    def read(self, params: Any) -> list[Any]:
        """Return the tree's arrays."""
        arrays = self.owned(params)
        if _same(arrays, self._known):
            return arrays
        _check_shapes(self.paths, self._shapes, arrays)
        return list(map(strongly_typed, arrays))

    def write(self, params: Any, arrays: Sequence[Any]) -> Any:
        """Return a new tree."""
        del params
        self._known = arrays
        return jax.tree.unflatten(self._treedef, arrays)

    def owned(self, params: Any) -> list[Any]:
        """Return the arrays themselves."""
        try:
            return self._treedef.flatten_up_to(params)
        except ValueError as error:
            raise ValueError(
                f"The params of a group must keep their structure: {error}"
            ) from error


class Variables:
    """NNX's variables, updated in place.

    A variable that stands in several places is one parameter, at the first of them,
    where `nnx.state` and `nnx.grad` have it too.
    """

    def __init__(self, params: Any, nodes: dict[Path, Any]) -> None:
        """Take a group's `params` and the modules and variables in it, by path."""
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
        """Return the variables' arrays."""
        if params is not self._params:
            raise ValueError(
                "The modules and variables of a group cannot be exchanged. Put new "
                "values into them, as with nnx.update(module, state)."
            )
        arrays = [_nnx.get(variable) for variable in self._variables]
        if _same(arrays, self._known):
            return arrays
        _check_shapes(self.paths, self._shapes, arrays)
        return list(map(strongly_typed, arrays))

    def write(self, params: Any, arrays: Sequence[Any]) -> Any:
        """Set the variables, and return the same objects."""
        self._known = arrays
        for variable, array in zip(self._variables, arrays, strict=True):
            _nnx.put(variable, array)
        return params

    def owned(self, params: Any) -> list[Any]:
        """Return the variables."""
        del params
        return self._variables


def find(params: Any) -> Parameters:
    """Find the parameters in what the user passed.

    Args:
      params: A tree of arrays, or of `nnx.Module` and `nnx.Variable`.

    Raises:
      ValueError: If there are none, or other things among them.
    """
    if isinstance(params, Iterator):
        raise ValueError(
            f"params must be a list or another tree that can be read again, got "
            f"{params!r}."
        )
    leaves, treedef = flatten(params)
    nodes = {path: leaf for path, leaf in leaves.items() if _nnx.is_node(leaf)}
    if nodes and len(nodes) < len(leaves):
        other = next(path for path in leaves if path not in nodes)
        raise ValueError(
            f"The params of a group must be all arrays or all of NNX, but "
            f"{label(next(iter(nodes)))} is of NNX and {label(other)} is not. Put "
            "them into two groups."
        )
    found = Variables(params, nodes) if nodes else ArrayTree(leaves, treedef)
    if not found.paths:
        raise ValueError(f"params must hold at least one parameter, got {params!r}.")
    return found


def flatten(tree: Any, *, with_none: bool = False) -> tuple[dict[Path, Any], Any]:
    """Return the leaves of a tree, by path, and its structure.

    Args:
      tree: Any tree. Modules and variables of NNX are leaves.
      with_none: Whether `None` is a leaf too.
    """

    def is_leaf(x: Any) -> bool:
        return _nnx.is_node(x) or (with_none and x is None)

    found, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)
    return {_names(path): leaf for path, leaf in found}, treedef


def label(path: Path) -> str:
    """Return a parameter's name for messages, such as ``params['conv1']['kernel']``."""
    return "params" + "".join(path)


def is_array(x: Any) -> bool:
    """Whether something is an array of JAX or NumPy, or a scalar of NumPy."""
    return isinstance(x, jax.Array | np.ndarray | np.generic)


def strongly_typed(array: Any) -> Any:
    """Return an array as what comes out of a compiled step.

    What `jnp.full` and `jnp.asarray` make of Python numbers is weakly typed: with it
    the second step would be compiled anew.
    """
    weak = getattr(array, "weak_type", False)
    return jnp.asarray(array, array.dtype) if weak else array


def is_inexact(array: Any) -> bool:
    """Whether an array is floating or complex."""
    return jnp.issubdtype(array.dtype, jnp.inexact)


def _names(path: Any) -> Path:
    return tuple(jax.tree_util.keystr((key,)) for key in path)


def _checked_shapes(paths, arrays):
    shapes = []
    for path, array in zip(paths, arrays, strict=True):
        if not is_array(array) or not is_inexact(array):
            raise ValueError(
                "Parameters must be floating or complex arrays of JAX or NumPy, in a "
                f"list, a dict or any other tree, but {label(path)} is {array!r}."
            )
        shapes.append(array.shape)
    return shapes


def _same(arrays, known):
    """Whether they are the arrays of the last step, and so have been looked at."""
    return len(arrays) == len(known) and all(map(operator.is_, arrays, known))


def _check_shapes(paths, shapes, arrays):
    for path, shape, array in zip(paths, shapes, arrays, strict=True):
        if getattr(array, "shape", None) != shape:
            raise ValueError(
                f"{label(path)} must stay an array of shape {shape}, got {array!r}."
            )
