"""Both moments in one 16-bit word: 2 bytes of state per parameter.

The word is ``[sign of r: 1][magnitude of r: 7][v: 8]`` with r = m / u and v = u / s.

v is cut out of the float32 bits: 6 bits of the exponent, a window of 64 octaves from
2^-28, and 2 of the mantissa. A step of the code is 14% to 25%, rounding is to the
nearest in ratio, so u is at most 12% off. Dividing v by 4 subtracts 8 from the code.

r needs no scale, since |m| / u ≤ R = (1 - β1) / (1 - β1/β2) for β1 < β2. Its code is
cut out of the float32 bits of x = 1 + 247 |r| / R in [1, 248]: 8 octaves of 16 steps,
R/3952 wide near 0, where a fixed-point code of 7 bits has R/127, and 8R/247 at the end.
"""

import numbers
from typing import Any

import jax.numpy as jnp

from adamax_optax._float_bits import BIAS, MANTISSA, from_bits, to_bits

_NORM_LOW = (BIAS - 28) << MANTISSA  # bits of 2^-28
_NORM_DROP = MANTISSA - 2
_NORM_HALF = int(0.53 * 2**_NORM_DROP)  # the geometric middle of a step, nearly
_NORM_MAX = 254
_NORM_NAN = 255  # a gradient that was not a number must not look healthy
_QUARTER = 8  # steps of the norm's code that make a factor of 4

_GRADIENT_MAX = 2.0**34  # with s ≥ 1/2, v ≤ 2^35 is in range

_RATIO_ONE = BIAS << MANTISSA  # bits of 1.0
_RATIO_DROP = MANTISSA - 4
_RATIO_MAX = 248.0  # 2^8 (1 - 2^-5), the last code
_LARGEST_BOUND = 64.0


class WordCodes:
    """One uint16 array: r, rounded at random, and v, rounded to nearest.

    Raises:
      ValueError: If b1 and b2 are numbers and b1 ≥ b2.
    """

    dtype = jnp.dtype(jnp.uint16)
    initial = (0,)  # r = 0 and the least v

    def __init__(self, b1: Any, b2: Any) -> None:
        numbers_given = isinstance(b1, numbers.Real) and isinstance(b2, numbers.Real)
        if numbers_given and not b1 < b2:
            raise ValueError(
                f"state_dtype=uint16 needs b1 < b2, got b1={b1!r}, b2={b2!r}: only "
                "then m / u is bounded, by (1 - b1) / (1 - b1 / b2), and fits a short "
                "code. Take state_dtype=jnp.bfloat16 for these."
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WordCodes)

    def __hash__(self) -> int:
        return hash(self.dtype)

    def step(self, g, codes, old_scale, scale, quarterings, b1, b2, eps, random):
        """Return the code after one gradient; `scale` is s, decayed already."""
        (word,) = codes
        bound = ratio_bound(b1, b2)
        # v saturates, so g must: their ratio would be R at once. NaN stays.
        g = jnp.clip(g, -_GRADIENT_MAX, _GRADIENT_MAX)
        # v ← max(v, (|g| + ε) / s)
        kept = word.astype(jnp.int32) & 0xFF
        kept = jnp.where(kept == _NORM_NAN, kept, kept - _QUARTER * quarterings)
        norm = jnp.maximum(kept, _norm_code((jnp.abs(g) + eps) * (1 / scale)))
        # m ← β1 m + (1 - β1) g with m = r u, in units of the new s
        m = _ratio(word, bound) * _norm(word) * (b1 * old_scale / scale)
        m = m + g * ((1 - b1) / scale)
        return (_join(_ratio_code(m, _norm(norm), bound, random), norm),)

    def ratio(self, codes, scale, b1, b2):
        """Return m / u, float32: the ratio that is stored, so within its bound."""
        return _ratio(codes[0], ratio_bound(b1, b2))

    def moments(self, codes, scale, b1, b2):
        """Return m and u, float32."""
        u = _norm(codes[0]) * scale
        return self.ratio(codes, scale, b1, b2) * u, u

    def encode(self, m, u, scale, b1, b2, random):
        """Return the code of given moments."""
        norm = _norm_code(u / scale)
        ratio = _ratio_code(m / scale, _norm(norm), ratio_bound(b1, b2), random)
        return (_join(ratio, norm),)


def ratio_bound(b1: Any, b2: Any) -> Any:
    """Return R with |m_t| ≤ R u_t for every t, at most 64.

    m_t = (1-β1) Σ β1^(t-i) g_i and u_t ≥ β2^(t-i) |g_i|, so |m_t| / u_t is at most
    (1-β1) Σ (β1/β2)^(t-i) < (1-β1) / (1 - β1/β2). Where traced β1 ≥ β2 could not be
    refused, R is 64 and larger ratios saturate.
    """
    if isinstance(b1, numbers.Real) and isinstance(b2, numbers.Real):
        b1, b2 = float(b1), float(b2)
        return min((1 - b1) / (1 - b1 / b2), _LARGEST_BOUND)
    bounded = b1 < b2
    gap = jnp.where(bounded, b2 - b1, 1.0)
    return jnp.where(
        bounded, jnp.minimum((1 - b1) * b2 / gap, _LARGEST_BOUND), _LARGEST_BOUND
    )


def _join(ratio, norm):
    # Ends in an `or` of two words, which XLA on CPU computes once: 18 bytes moved per
    # parameter and no temporaries. A sum of int32, converted last, would be computed
    # again in the loop that reads it.
    return (ratio.astype(jnp.uint16) << 8) | norm.astype(jnp.uint16)


def _norm(word):
    return from_bits(((word.astype(jnp.int32) & 0xFF) << _NORM_DROP) + _NORM_LOW)


def _norm_code(v):
    code = (to_bits(v) - _NORM_LOW + _NORM_HALF) >> _NORM_DROP
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
