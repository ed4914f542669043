"""Access to the variables of Flax NNX, which are updated in place.

Flax is optional and never imported here: until the user imports it, no object can have
one of its types.
"""

import sys
from typing import Any

import jax

# The last key of the path to an array in a variable.
VALUE = jax.tree_util.GetAttrKey("value")


def is_node(x: Any) -> bool:
    """Return whether `x` is an NNX module or variable."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(x, nnx.Module | nnx.Variable)


def is_variable(x: Any) -> bool:
    """Return whether `x` is an NNX variable."""
    return is_node(x) and not isinstance(x, sys.modules["flax.nnx"].Module)


def variables_of(node: Any) -> list[tuple[tuple[Any, ...], Any]]:
    """Return (path, variable) for a variable, or for each `nnx.Param` of a module."""
    if is_variable(node):
        return [((), node)]
    nnx = sys.modules["flax.nnx"]
    tree = nnx.variables(node, nnx.Param)
    return jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_variable)[0]


# Flax 0.11 has only the property `value`, which 0.12 deprecated.
def get(variable: Any) -> Any:
    """Return the array in a variable."""
    if hasattr(variable, "get_value"):
        return variable.get_value()
    return variable.value


def put(variable: Any, array: Any) -> None:
    """Replace the array in a variable."""
    if hasattr(variable, "set_value"):
        variable.set_value(array)
    else:
        variable.value = array
