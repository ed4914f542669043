"""The bits of float32 numbers, and rounding to fewer of them."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

MANTISSA = 23  # bits of the mantissa of float32
BIAS = 127  # exponent code of 1.0


def to_bits(x: jax.Array) -> jax.Array:
    """Return the bits of float32 numbers as int32."""
    return lax.bitcast_convert_type(x, jnp.int32)


def from_bits(bits: jax.Array) -> jax.Array:
    """Return the float32 numbers with these bits."""
    return lax.bitcast_convert_type(bits, jnp.float32)


def power_of_two(exponent: jax.Array) -> jax.Array:
    """Return 2^exponent for an int32 exponent of a normal float32 number."""
    return from_bits((exponent + BIAS) << MANTISSA)


def round_at_random(x: jax.Array, dtype: Any, random: jax.Array) -> jax.Array:
    """Round float32 to a narrower float, up or down in proportion to the distances.

    Between two neighbours of the narrower dtype float32's bits are linear in x, so
    that adding uniform noise to the bits to be dropped, and dropping them, makes the
    mean of the result x.

    Args:
      x: float32, whose normal range must lie within that of `dtype`.
      dtype: bfloat16 or float16.
      random: uint32 noise of the shape of `x`.
    """
    drop = MANTISSA - jnp.finfo(dtype).nmant
    bits = to_bits(x) + (random >> (32 - drop)).astype(jnp.int32)
    return from_bits(bits & (-1 << drop)).astype(dtype)


def round_to_nearest(x: jax.Array, dtype: Any) -> jax.Array:
    """Round float32 to a narrower float; compilers may skip `astype` there and back."""
    info = jnp.finfo(dtype)
    return lax.reduce_precision(x, info.nexp, info.nmant).astype(dtype)
