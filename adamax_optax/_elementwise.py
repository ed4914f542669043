"""Whether a traced function computes each element of an array by itself."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.extend.core import Jaxpr, Literal

# Operations that compute each element by itself, or leave the array as it is, if they
# keep its shape. Any other, such as a cumulative sum, may mix elements.
_ELEMENTWISE = frozenset(
    """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e
    bitcast_convert_type broadcast_in_dim cbrt ceil clamp clz complex conj
    convert_element_type copy copy_p cos cosh debug_callback device_put digamma div
    dynamic_slice eq eq_to erf erf_inv erfc exp exp2 expm1 floor ge gt igamma
    igamma_grad_a igammac imag integer_pow is_finite le le_to lgamma log log1p
    logistic lt lt_to max mesh_cast min mul mulhi name ne neg nextafter not
    optimization_barrier or pcast pmax pmin polygamma population_count pow psum
    psum_invariant pvary random_gamma_grad real reduce_precision
    regularized_incomplete_beta rem reshape reshard round rsqrt select_n
    sharding_constraint shift_left shift_right_arithmetic shift_right_logical sign
    sin sinh slice sqrt square squeeze stop_gradient sub tan tanh xor zeta
    """.split()
)
# Operations that call a function once, or one of several.
_CALLS = frozenset(
    """
    checkpoint closed_call cond core_call custom_jvp_call custom_vjp_call
    custom_vjp_call_jaxpr jit pjit remat2 shard_map
    """.split()
)


def mixing_operation(jaxpr: Jaxpr, marked: Sequence[bool]) -> str | None:
    """Return the name of an operation that mixes elements, or `None`.

    An elementwise operation returns arrays of its operands' shape. So this follows the
    `marked` inputs through the function, to the first operation that changes a shape.
    """
    return _follow(jaxpr, marked)[0]


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
        if name in _CALLS:
            outputs = [False] * len(equation.outvars)
            for function in _called(equation):
                # The operands of `cond` begin with the number of the branch.
                operands = inputs[len(inputs) - len(function.invars) :]
                mixing, own = _follow(function, operands)
                if mixing:
                    return mixing, []
                outputs = [a or b for a, b in zip(outputs, own, strict=True)]
        elif (
            name not in _ELEMENTWISE
            or len({getattr(x.aval, "shape", None) for x in touched}) > 1
        ):
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
