"""The bits of float32, noise, and rounding to nearest or at random."""

import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from adamax_optax._sharding import zeros_like

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


def drop_at_random(bits: jax.Array, drop: int, random: jax.Array) -> jax.Array:
    """Drop the last bits of int32 numbers, rounding up or down at random.

    Between two numbers whose last `drop` bits are 0, the bits of float32 are linear in
    its value. So adding uniform noise to the bits to be dropped, then dropping them,
    gives a result whose mean is the value. Handle NaN separately: the noise (uint32)
    may turn it into any number.
    """
    return (bits + (random >> (32 - drop)).astype(jnp.int32)) >> drop


def to_bfloat16_at_random(x: jax.Array, random: jax.Array) -> jax.Array:
    """Round float32 to bfloat16, up or down at random, without bias; keep NaN."""
    drop = 16
    bits = drop_at_random(to_bits(x), drop, random) << drop
    return jnp.where(x == x, from_bits(bits), jnp.nan).astype(jnp.bfloat16)


def to_float16_at_random(
    magnitude: jax.Array, sign: jax.Array, random: jax.Array
) -> jax.Array:
    """Round float32 to float16, up or down at random, without bias; keep NaN.

    `magnitude` is in [0, 32768]. The result has the sign bit of `sign`, which is NaN
    where `magnitude` is.
    """
    drop, least = 13, 2.0**-14  # the smallest normal number of float16
    # From 2^-14 on, the bits of 2x are those of a float16 with 13 more. Below, where
    # float16 is a multiple of 2^-24, those of x + 2^-14 are.
    bits = to_bits(jnp.maximum(magnitude + least, 2 * magnitude))
    code = drop_at_random(bits - to_bits(jnp.float32(least)), drop, random)
    code = jnp.where(sign == sign, code, 0x7E00).astype(jnp.uint16)
    rounded = lax.bitcast_convert_type(code, jnp.float16)
    # Not `sign < 0`, so that what underflowed to -0.0 keeps its sign.
    return jnp.where(to_bits(sign) < 0, -rounded, rounded)


def round_to_nearest(x: jax.Array, dtype: Any) -> jax.Array:
    """Round float32 to a narrower float; compilers may elide an `astype` round trip."""
    info = jnp.finfo(dtype)
    return lax.reduce_precision(x, info.nexp, info.nmant).astype(dtype)


def spacing(x: jax.Array, dtype: Any) -> jax.Array:
    """Return the distance between neighbours in `dtype` at float32 numbers.

    Subnormal neighbours count. For bfloat16 below 2^-119 the distance is 2^-126, since
    subnormal numbers of float32 may be flushed to zero.
    """
    info = jnp.finfo(dtype)
    least = max(BIAS + int(info.minexp), 1 + info.nmant)
    exponent = jnp.clip((to_bits(x) >> MANTISSA) & 0xFF, least, 254)
    return from_bits((exponent - info.nmant) << MANTISSA)


def uniform(random: jax.Array) -> jax.Array:
    """Return float32 numbers in [0, 1), multiples of 2^-24, from uint32 noise."""
    return (random >> 8).astype(jnp.float32) * np.float32(2.0**-24)


# The fractional part of the golden ratio in 32 bits: repeated addition visits all 2^32
# values, and consecutive ones are far apart.
_GOLDEN = 0x9E3779B9


def next_key(key: jax.Array) -> jax.Array:
    """Return the next step's key; keys repeat after 2^32 steps."""
    return key + np.uint32(_GOLDEN)


def leaf_key(key: jax.Array, leaf: int) -> jax.Array:
    """Return the key of leaf number `leaf`."""
    return _mix(_mix(key) + np.uint32(leaf * _GOLDEN % 2**32))


def leaf_keys(key: jax.Array, tree: Any) -> jax.Array:
    """Return a key for each leaf of a tree: uint32, shape (leaves,).

    They depend on the leaves' paths: in an `optax.partition`, whose groups all start
    from the same key, a leaf's number in its group would give equal noise to several.
    """
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
    names = [jax.tree_util.keystr(path).encode() for path in paths]
    return _mix(_mix(key) + np.array([zlib.crc32(name) for name in names], np.uint32))


def noise(like: jax.Array, key: jax.Array) -> jax.Array:
    """Return 32 random bits for each element of `like`: uint32, in its shape.

    They depend only on the key (uint32, shape ()) and the element's position in the
    whole array, not on how it is sharded. With explicit mesh axes they have the array's
    sharding: otherwise every device would compute all of them.
    """
    shape = jnp.shape(like)
    # The position in row-major order, modulo 2^32.
    strides = [math.prod(shape[axis + 1 :]) % 2**32 for axis in range(len(shape))]
    place = zeros_like(like, jnp.uint32)
    for axis, stride in enumerate(strides):
        index = lax.broadcasted_iota(jnp.uint32, shape, axis)
        place = place + index * np.uint32(stride)
    return _mix(place + key)


def _mix(x: jax.Array) -> jax.Array:
    """Mix 32 bits reversibly: C. Wellons's "lowbias32"."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)
