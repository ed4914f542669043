"""Access to the variables of Flax NNX, which are updated in place.

Flax is optional and never imported here: until the user imports it, no object can have
one of its types.
"""

import operator
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
    return is_node(x) and not isinstance(x, sys.modules["flax.nnx"].Module)


def variables_of(node: Any) -> list[tuple[tuple[Any, ...], Any]]:
    """Return (path, variable) for a variable, or for each `nnx.Param` of a module."""
    if is_variable(node):
        return [((), node)]
    nnx = sys.modules["flax.nnx"]
    tree = nnx.variables(node, nnx.Param)
    return jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_variable)[0]


def parts(module: Any, other: Any) -> dict[int, Any]:
    """Return the counterpart of each part of a module in a copy, by id of the part."""
    nnx = sys.modules["flax.nnx"]
    copies = dict(nnx.iter_graph(other))
    return {
        id(part): copies[path] for path, part in nnx.iter_graph(module) if is_node(part)
    }


# Flax 0.11 has only the property `value`, which 0.12 deprecated.
def get(variable: Any) -> Any:
    if hasattr(variable, "get_value"):
        return variable.get_value()
    return variable.value


def put(variable: Any, array: Any) -> None:
    if hasattr(variable, "set_value"):
        variable.set_value(array)
    else:
        variable.value = array


def slot_of(variable: Any) -> str | None:
    """Return the name of the attribute in which a variable keeps its array.

    `None` if only `get` and `put` reach it: a variable with hooks or accessors of its
    own, or one that keeps a reference. Setting the attribute runs no Python code.
    """
    kind, base = type(variable), sys.modules["flax.nnx"].Variable
    own = any(
        getattr(kind, name, None) is not getattr(base, name, None)
        for name in ("get_value", "set_value", "value")
    )
    slot = "_raw_value" if hasattr(variable, "_raw_value") else "raw_value"
    hooks = {"on_get_value", "on_set_value"} & set(variable.get_metadata())
    plain = not (own or hooks) and getattr(variable, slot, None) is get(variable)
    return slot if plain else None


class Structure:
    """The places that lead from a tree of modules and variables to each `nnx.Param`."""

    def __init__(self, params: Any) -> None:
        self._sizes = [(params, len(params))] if hasattr(params, "__len__") else []
        # Lists of equal length, which `check` compares without a loop in Python.
        self._containers: list[Any] = []
        self._keys: list[Any] = []
        self._children: list[Any] = []
        self._leads: dict[int, bool] = {}
        self._walk(params)

    def check(self) -> None:
        """Raise `ValueError` if a module or a variable was replaced."""
        try:
            found = list(map(operator.getitem, self._containers, self._keys))
        except (KeyError, IndexError):
            found = []
        if (
            len(found) == len(self._children)
            and all(map(operator.is_, found, self._children))
            and all(len(container) == size for container, size in self._sizes)
        ):
            return
        changed = [
            str(key)
            for container, key, child in zip(
                self._containers, self._keys, self._children, strict=True
            )
            if not _has(container, key, child)
        ]
        raise ValueError(
            "A module must keep the parts that it had when the optimizer was made, "
            f"but {changed} were replaced or removed. Put new values into them, as "
            "nnx.update(module, state) does, or make a new optimizer."
        )

    def _walk(self, x: Any) -> bool:
        """Return whether an object leads to a parameter."""
        nnx = sys.modules["flax.nnx"]
        if isinstance(x, nnx.Variable):
            return isinstance(x, nnx.Param)
        if id(x) not in self._leads:
            self._leads[id(x)] = False  # until it is known, for modules in a cycle
            # Flax 0.11 calls the class of modules and their containers Object.
            base = nnx.Pytree if hasattr(nnx, "Pytree") else nnx.Object
            container = vars(x) if isinstance(x, base) else x
            if isinstance(container, dict):
                pairs = list(container.items())
            elif isinstance(container, list | tuple):
                pairs = list(enumerate(container))
            else:
                pairs = []
            for key, child in pairs:
                if self._walk(child):
                    self._leads[id(x)] = True
                    self._containers.append(container)
                    self._keys.append(key)
                    self._children.append(child)
        return self._leads[id(x)]


def _has(container: Any, key: Any, child: Any) -> bool:
    try:
        return container[key] is child
    except (KeyError, IndexError):
        return False
