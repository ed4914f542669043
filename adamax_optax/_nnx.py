"""What is particular to Flax NNX, whose variables are updated in place.

Flax is optional: unless the user has imported it, nothing can be an object of it.
"""

import sys
from typing import Any

import jax


def is_node(x: Any) -> bool:
    """Whether something is a module or a variable of NNX."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(x, nnx.Module | nnx.Variable)


def is_variable(x: Any) -> bool:
    """Whether something is a variable of NNX."""
    return is_node(x) and not isinstance(x, sys.modules["flax.nnx"].Module)


def variables_of(node: Any) -> list[tuple[tuple[Any, ...], Any]]:
    """Return a variable, or the `nnx.Param` of a module, each with its path there."""
    if is_variable(node):
        return [((), node)]
    nnx = sys.modules["flax.nnx"]
    tree = nnx.variables(node, nnx.Param)
    return jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_variable)[0]


# Flax 0.12 deprecated the property `value`, which is all that 0.11 has.
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
