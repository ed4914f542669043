"""Both moments in one 16-bit word: 2 bytes of state per parameter.

The word is ``[sign of r: 1][magnitude of r: 7][v: 8]`` with r = m / u and v = u / s.

v is cut out of the float32 bits: 6 bits of the exponent, a window of 64 octaves from
2^-28, and 2 of the mantissa. A step of the code is 14% to 25%, and rounding is to the
nearest in ratio, so u is at most 12% off. Dividing v by 4 subtracts 8 from the code.

r needs no scale of its own: |r| never exceeds the bound B that the state keeps (see
`ratio_bound`). Its code is cut out of the float32 bits of x = 1 + 247 |r| / B, which
lies in [1, 248]: 8 octaves of 16 steps, from B/3952 near 0, where fixed point with 7
bits has B/127, to 8B/247 at the end.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adamax_optax._rounding import BIAS, MANTISSA, from_bits, to_bits

Codes = tuple[jax.Array]

_NORM_LOW = (BIAS - 28) << MANTISSA  # bits of 2^-28
_NORM_DROP = MANTISSA - 2
_NORM_HALF = 0.53  # the geometric middle of a step, nearly
_NORM_MAX = 254
_NORM_NAN = 255  # keeps a NaN gradient visible
_QUARTER = 8  # steps of the norm's code that make a factor of 4

_GRADIENT_MAX = 2.0**34  # with s ≥ 1/2, v ≤ 2^35 is in range

_RATIO_ONE = BIAS << MANTISSA  # bits of 1.0
_RATIO_DROP = MANTISSA - 4
_RATIO_MAX = 248.0  # 2^8 (1 - 2^-5), the last code

# v rounds down by at most this factor: from just under 1 + (1 - 0.53)/4 to 1.
_ROUNDED_DOWN = 1 + (1 - _NORM_HALF) / 4
_LARGEST_BOUND = 64.0


@dataclasses.dataclass(frozen=True)
class WordCodes:
    """One uint16 array: r, rounded at random, and v, rounded to nearest."""

    dtype = jnp.dtype(jnp.uint16)
    bounded = True
    initial = (0,)  # r = 0 and the least v

    def step(
        self,
        g: jax.Array,
        codes: Codes,
        scales: tuple[jax.Array, jax.Array, jax.Array],
        bounds: tuple[jax.Array, jax.Array],
        b1: ArrayLike,
        eps: ArrayLike,
        random: jax.Array,
    ) -> Codes:
        """Return the code after one gradient; see `Codec`."""
        (word,) = codes
        old_scale, scale, quarterings = scales
        old_bound, bound = bounds
        # v saturates, so g must, or r would jump to its bound at once. NaN stays.
        g = jnp.clip(g, -_GRADIENT_MAX, _GRADIENT_MAX)
        # v ← max(v, (|g| + ε) / s)
        kept = word.astype(jnp.int32) & 0xFF
        kept = jnp.where(kept == _NORM_NAN, kept, kept - _QUARTER * quarterings)
        norm = jnp.maximum(kept, _norm_code((jnp.abs(g) + eps) * (1 / scale)))
        # m ← β1 m + (1 - β1) g with m = r u, in units of the new s
        m = _ratio(word, old_bound) * _norm(word) * (b1 * old_scale / scale)
        m = m + g * ((1 - b1) / scale)
        return (_join(_ratio_code(m, _norm(norm), bound, random), norm),)

    def ratio(self, codes: Codes, scale: jax.Array, bound: jax.Array) -> jax.Array:
        """Return m / u, float32: r as it is stored."""
        return _ratio(codes[0], bound)

    def dequantize(
        self, codes: Codes, scale: jax.Array, bound: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return m and u, float32."""
        u = _norm(codes[0]) * scale
        return _ratio(codes[0], bound) * u, u

    def quantize(
        self,
        m: jax.Array,
        u: jax.Array,
        scale: jax.Array,
        bound: jax.Array,
        random: jax.Array,
    ) -> Codes:
        """Return the code of m and u."""
        norm = _norm_code(u / scale)
        return (_join(_ratio_code(m / scale, _norm(norm), bound, random), norm),)


def next_bound(bound: jax.Array, b1: ArrayLike, b2: ArrayLike) -> jax.Array:
    """Return the bound of |m_t| / u_t from that of |m_{t-1}| / u_{t-1}.

    Since u_t ≥ β2 u_{t-1} and u_t ≥ |g_t|,

        |m_t| / u_t ≤ β1 |m_{t-1}| / (β2 u_{t-1}) + (1 - β1) |g_t| / |g_t|,

    whatever the betas were before. A stored u_t may be smaller than |g_t|, by the
    rounding of v. From 0 the bound rises to 1.12 (1 - β1) / (1 - β1/β2) if β1 < β2, and
    without end if not: it stops at 64, where larger ratios saturate.

    Args:
      bound: float32, of any shape; 0 before the first step.
      b1: β1.
      b2: β2, more than 0.
    """
    return jnp.minimum(b1 / b2 * bound + (1 - b1) * _ROUNDED_DOWN, _LARGEST_BOUND)


def bound_of(m: jax.Array, u: jax.Array) -> jax.Array:
    """Return the bound of one leaf whose moments were not made by `WordCodes`.

    Args:
      m: float32.
      u: float32, of the same shape.
    """
    ratio = jnp.abs(m) / u
    # At least the smallest normal number: the code divides by the bound.
    tiny = float(jnp.finfo(jnp.float32).tiny)
    largest = jnp.max(ratio, initial=tiny, where=jnp.isfinite(ratio))
    return jnp.minimum(largest * _ROUNDED_DOWN, _LARGEST_BOUND)


def _join(ratio, norm):
    # Ends in an `or` of two words, which XLA on CPU computes once: 18 bytes moved per
    # parameter and no temporaries. A sum of int32, converted last, it would recompute in
    # every loop that reads it.
    return (ratio.astype(jnp.uint16) << 8) | norm.astype(jnp.uint16)


def _norm(word):
    return from_bits(((word.astype(jnp.int32) & 0xFF) << _NORM_DROP) + _NORM_LOW)


def _norm_code(v):
    half = int(_NORM_HALF * 2**_NORM_DROP)
    code = (to_bits(v) - _NORM_LOW + half) >> _NORM_DROP
    return jnp.where(v != v, _NORM_NAN, jnp.clip(code, 0, _NORM_MAX))


def _ratio(word, bound):
    word = word.astype(jnp.int32)
    x = from_bits((((word >> 8) & 0x7F) << _RATIO_DROP) + _RATIO_ONE)
    magnitude = (x - 1.0) * (bound / (_RATIO_MAX - 1))
    ratio = from_bits(to_bits(magnitude) | ((word & 0x8000) << 16))
    return jnp.where((word & 0xFF) == _NORM_NAN, jnp.nan, ratio)


def _ratio_code(m, v, bound, random):
    # The quotient has one use: XLA on CPU does not keep a division that is used twice
    # inside one loop, and would write it to memory.
    x = jnp.minimum(jnp.abs(m) / v * ((_RATIO_MAX - 1) / bound) + 1.0, _RATIO_MAX)
    dropped = (random >> (32 - _RATIO_DROP)).astype(jnp.int32)
    code = ((to_bits(x) + dropped) >> _RATIO_DROP) - (_RATIO_ONE >> _RATIO_DROP)
    return (code & 0x7F) | ((to_bits(m) >> 24) & 0x80)
