"""Whether a traced function computes each element of an array by itself."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.extend.core import Jaxpr, Literal

# Operations that keep the shape of an array and yet mix its elements, or may do so.
_MIXING = {
    *("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "sort", "rev", "fft"),
    *("transpose", "dot_general", "conv_general_dilated", "triangular_solve"),
    *("cholesky", "gather", "scatter", "scatter-add", "dynamic_update_slice"),
    *("while", "scan", "pure_callback", "io_callback", "ffi_call", "pallas_call"),
}


def mixing_operation(jaxpr: Jaxpr, marked: Sequence[bool]) -> str | None:
    """Return the name of an operation that mixes elements, or `None`.

    An elementwise operation returns arrays of its operands' shape. So this follows
    arrays through the function, to the first operation that changes their shape.

    Args:
      jaxpr: The traced function.
      marked: Which of its inputs are the arrays to follow.
    """
    name, _ = _follow(jaxpr, marked)
    return name


def _follow(jaxpr: Jaxpr, marked: Sequence[bool]) -> tuple[str | None, list[bool]]:
    """Return an operation that mixes elements, and which outputs were reached."""
    reached = {x for x, mark in zip(jaxpr.invars, marked, strict=True) if mark}

    def marks(atoms):
        return [not isinstance(x, Literal) and x in reached for x in atoms]

    for equation in jaxpr.eqns:
        inputs, name = marks(equation.invars), equation.primitive.name
        if not any(inputs):
            continue
        arrays = [x for x, mark in zip(equation.invars, inputs, strict=True) if mark]
        touched = *arrays, *equation.outvars
        if name in _MIXING:
            return name, []
        if called := _called(equation):
            outputs = [False] * len(equation.outvars)
            for function in called:
                # The operands of `cond` begin with the number of the branch.
                operands = inputs[len(inputs) - len(function.invars) :]
                mixing, own = _follow(function, operands)
                if mixing:
                    return mixing, []
                outputs = [a or b for a, b in zip(outputs, own, strict=True)]
        elif len({getattr(x.aval, "shape", None) for x in touched}) > 1:
            return name, []
        else:
            outputs = [True] * len(equation.outvars)
        reached |= {
            x for x, mark in zip(equation.outvars, outputs, strict=True) if mark
        }
    return None, marks(jaxpr.outvars)


def _called(equation: Any) -> list[Jaxpr]:
    """Return the functions that an operation calls: the branches of `cond`, or one."""
    values = jax.tree.leaves(list(equation.params.values()))
    functions = [getattr(value, "jaxpr", value) for value in values]
    return [function for function in functions if isinstance(function, Jaxpr)]
