"""Float32's bits, noise, and rounding to nearest or at random."""

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


def round_to_neighbour(x: jax.Array, dtype: Any, random: jax.Array) -> jax.Array:
    """Round float32 to one of its two neighbours in `dtype`, subnormal ones included.

    The neighbours are multiples of a quantum, the spacing of `dtype` at |x|. That of
    bfloat16 below 2^-119 is taken as 2^-126, since float32's own subnormal numbers may
    be flushed to zero.
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


# The fractional part of the golden ratio in 32 bits: adding it again and again visits
# all 2^32 values, far apart from each other.
_GOLDEN = 0x9E3779B9


def next_key(key: jax.Array) -> jax.Array:
    """Return the key of the next step; keys repeat after 2^32 steps."""
    return key + np.uint32(_GOLDEN)


def leaf_key(key: jax.Array, leaf: int) -> jax.Array:
    """Return the key of one leaf, by its number in the tree."""
    return _mix(_mix(key) + np.uint32(leaf * _GOLDEN % 2**32))


def noise(like: jax.Array, key: jax.Array) -> jax.Array:
    """Return 32 random bits for each element of an array.

    They depend on the key and on the element's place in the whole array, and so are
    the same on one device and on many, however the array is sharded.

    Args:
      like: The array.
      key: uint32, shape ().

    Returns:
      uint32, of the array's shape. With axes of the mesh in explicit mode the type has
      the array's sharding too: otherwise every device would compute all of it.
    """
    shape = jnp.shape(like)
    # The place in row-major order, modulo 2^32.
    strides = [math.prod(shape[axis + 1 :]) % 2**32 for axis in range(len(shape))]
    place = jnp.zeros_like(like, dtype=jnp.uint32)
    for axis, stride in enumerate(strides):
        index = lax.broadcasted_iota(jnp.uint32, shape, axis)
        place = place + index * np.uint32(stride)
    return _mix(place + key)


def _mix(x: jax.Array) -> jax.Array:
    """Scramble 32 bits, one to one: C. Wellons's "lowbias32"."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)
