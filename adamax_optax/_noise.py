"""Noise for rounding at random: a function of place and key, without a stream."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

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
