"""The bits of float32, noise, and rounding to nearest or at random."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
    """Return 2^exponent in float32, for an int32 exponent of its normal range."""
    return from_bits((exponent + BIAS) << MANTISSA)


def round_at_random(x: jax.Array, dtype: Any, random: jax.Array) -> jax.Array:
    """Round float32 to a narrower float, up or down at random, without bias.

    Between two neighbours in the narrower dtype, the bits of float32 are linear in x.
    So adding uniform noise to the bits to be dropped, then dropping them, gives a
    result whose mean is x.

    Args:
      x: float32, whose normal range must lie within that of `dtype`.
      dtype: bfloat16 or float16.
      random: uint32 noise with the shape of `x`.
    """
    drop = MANTISSA - jnp.finfo(dtype).nmant
    bits = to_bits(x) + (random >> (32 - drop)).astype(jnp.int32)
    return from_bits(bits & (-1 << drop)).astype(dtype)


def round_to_nearest(x: jax.Array, dtype: Any) -> jax.Array:
    """Round float32 to a narrower float; compilers may elide an `astype` round trip."""
    info = jnp.finfo(dtype)
    return lax.reduce_precision(x, info.nexp, info.nmant).astype(dtype)


def round_to_neighbour(x: jax.Array, dtype: Any, random: jax.Array) -> jax.Array:
    """Round float32 at random to one of its two neighbours in `dtype`.

    The neighbours, subnormal ones included, are multiples of a quantum: the spacing of
    `dtype` at |x|. For bfloat16 below 2^-119 the quantum is 2^-126, since subnormal
    numbers of float32 may be flushed to zero.
    """
    info = jnp.finfo(dtype)
    least = max(BIAS + int(info.minexp), 1 + info.nmant)
    exponent = jnp.clip((to_bits(x) >> MANTISSA) & 0xFF, least, 254)
    quantum = from_bits((exponent - info.nmant) << MANTISSA)
    multiple = x / quantum  # exact: the quantum is a power of two
    down = jnp.floor(multiple)
    up = (random >> 8).astype(jnp.float32) * np.float32(2.0**-24) < multiple - down
    rounded = (down + up.astype(jnp.float32)) * quantum
    rounded = jnp.clip(rounded, float(info.min), float(info.max))
    return jnp.where(jnp.isfinite(x), rounded, x)


# The fractional part of the golden ratio in 32 bits: repeated addition visits all 2^32
# values, and consecutive ones are far apart.
_GOLDEN = 0x9E3779B9


def next_key(key: jax.Array) -> jax.Array:
    """Return the next step's key; keys repeat after 2^32 steps."""
    return key + np.uint32(_GOLDEN)


def leaf_key(key: jax.Array, leaf: int) -> jax.Array:
    """Return the key of leaf number `leaf`."""
    return _mix(_mix(key) + np.uint32(leaf * _GOLDEN % 2**32))


def noise(like: jax.Array, key: jax.Array) -> jax.Array:
    """Return 32 random bits for each element of `like`: uint32, in its shape.

    They depend only on the key (uint32, shape ()) and the element's position in the
    whole array, not on how the array is sharded. With explicit mesh axes they have
    the array's sharding: otherwise every device would compute all of them.
    """
    shape = jnp.shape(like)
    # The position in row-major order, modulo 2^32.
    strides = [math.prod(shape[axis + 1 :]) % 2**32 for axis in range(len(shape))]
    place = jnp.zeros_like(like, dtype=jnp.uint32)
    for axis, stride in enumerate(strides):
        index = lax.broadcasted_iota(jnp.uint32, shape, axis)
        place = place + index * np.uint32(stride)
    return _mix(place + key)


def _mix(x: jax.Array) -> jax.Array:
    """Mix 32 bits reversibly: C. Wellons's "lowbias32"."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)
