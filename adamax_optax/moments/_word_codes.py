"""Both moments in one 16-bit word: 2 bytes of state per parameter.

The word is ``[sign of r: 1][magnitude of r: 7][v: 8]`` with r = m / u and v = u / s.

v is a slice of float32 bits: 6 bits of exponent, for 64 octaves from 2^-28, and 2 of
mantissa. To divide v by 4, subtract 8 from its code.

r needs no scale of its own: |r| never exceeds C = c B, with B the bound in the state
(see `next_bound`) and c = 1.1175 the most by which a stored u can be too small. Its
code is piecewise linear in the float32 bits of x = 1 + 11263 |r| / C, which lies in
[1, 11264]: 6 octaves of 4 steps, then 5.5 of 16, where |r| is mostly found, then 1.875
of 8. docs/low_precision.md has the errors and the proofs.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adamax_optax._rounding import (
    BIAS,
    MANTISSA,
    drop_at_random,
    from_bits,
    power_of_two,
    to_bits,
)

Codes = tuple[jax.Array]

_NORM_LOW = (BIAS - 28) << MANTISSA  # bits of 2^-28
_NORM_DROP = MANTISSA - 2
_NORM_HALF = 0.53  # of a step; rounds almost to the nearest ratio
_NORM_MAX = 254
_NORM_NAN = 255  # keeps a NaN gradient visible
_QUARTER = 8  # steps of the norm's code in a factor of 4

_GRADIENT_MAX = 2.0**34  # with s ≥ 1/2, v ≤ 2^35 is in range

_RATIO_ONE = BIAS << MANTISSA  # bits of 1.0
_RATIO_STEP = MANTISSA - 4  # bits of a fine step: 16 in an octave
_FINE_FROM, _FINE_TO = 96, 184  # where steps are fine, in fine steps
_TOP = _FINE_FROM * 3 // 2 - _FINE_TO  # 2 code + _TOP meets the fine steps there
_RATIO_MAX = 11264.0  # 2^13 (1 + 6/16), the last code

# c, the largest factor by which v rounds down: from just under 1 + (1 - 0.53)/4 to 1.
_ROUNDED_DOWN = 1 + (1 - _NORM_HALF) / 4
_UNIT = _ROUNDED_DOWN / (_RATIO_MAX - 1)  # |r| = (x - 1) B _UNIT
# Not 0, even if m is: 1 / bound must be finite, or r = 0 has no code.
_BOUND_MIN = 2.0**-64
BOUND_MAX = 1024.0


@dataclasses.dataclass(frozen=True)
class WordCodes:
    """One uint16 array: r = m / u, rounded at random, and v = u / s, to nearest."""

    dtype = jnp.dtype(jnp.uint16)
    bounded = True
    initial = (0,)  # r = 0 and the smallest v

    def step(
        self,
        g: jax.Array,
        codes: Codes,
        inverse: jax.Array,
        quarterings: jax.Array,
        bounds: tuple[jax.Array, jax.Array],
        b1: ArrayLike,
        b2: ArrayLike,
        eps: ArrayLike,
        random: jax.Array,
    ) -> Codes:
        """Return the code after one gradient; see `HalfCodes.step`."""
        word = codes[0].astype(jnp.int32)
        old_bound, bound = bounds
        # The code of v saturates, so g must too, or r would jump to its bound. NaN
        # passes.
        g = jnp.clip(g, -_GRADIENT_MAX, _GRADIENT_MAX)
        # v ← max(v, (|g| + ε) / s)
        old = word & 0xFF
        kept = jnp.where(old == _NORM_NAN, old, old - _QUARTER * quarterings)
        norm = jnp.maximum(kept, _norm_code((jnp.abs(g) + eps) * inverse))
        # m ← β1 m + (1 - β1) g with m = r u, in units of the new s = 4^q β2 old s
        m = _ratio(word, old_bound) * _norm(old)
        m = m * (b1 / b2 * power_of_two(-2 * quarterings)) + g * ((1 - b1) * inverse)
        return (_join(_ratio_code(m, _norm(norm), bound, random), norm),)

    def ratio(self, codes: Codes, scale: jax.Array, bound: jax.Array) -> jax.Array:
        """Return m / u, float32: the stored r."""
        word = codes[0].astype(jnp.int32)
        return jnp.where((word & 0xFF) == _NORM_NAN, jnp.nan, _ratio(word, bound))

    def dequantize(
        self, codes: Codes, scale: jax.Array, bound: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return m and u, float32."""
        word = codes[0].astype(jnp.int32)
        norm = word & 0xFF
        u = jnp.where(norm == _NORM_NAN, jnp.nan, _norm(norm)) * scale
        return _ratio(word, bound) * u, u

    def quantize(
        self,
        m: jax.Array,
        u: jax.Array,
        scale: jax.Array,
        bound: jax.Array,
        random: jax.Array,
    ) -> Codes:
        """Return the code of m and u."""
        norm = jnp.where(m != m, _NORM_NAN, _norm_code(u / scale))
        # Before the first step of a row, m and the bound are 0.
        bound = jnp.maximum(bound, _BOUND_MIN)
        return (_join(_ratio_code(m / scale, _norm(norm), bound, random), norm),)


def next_bound(bound: jax.Array, b1: ArrayLike, b2: ArrayLike) -> jax.Array:
    """Return the bound on |m_t| / u_t, given that on |m_{t-1}| / u_{t-1}.

    Since u_t ≥ β2 u_{t-1} and u_t ≥ |g_t|, whatever the betas were before,

        |m_t| / u_t ≤ (β1/β2) |m_{t-1}| / u_{t-1} + (1 - β1).

    A stored u_t may be less than |g_t|, by a factor of c at most; then the same holds
    with c times the bound. It is capped at 1024 - β1, where larger ratios saturate.
    `bound` is 0 before the first step; `b2` must exceed 0.
    """
    # Every program must compute the same bits. Some would fuse a sum with a product
    # into one rounding, so no operand of this sum is a product.
    return jnp.minimum(b1 / b2 * bound, BOUND_MAX - 1) + (1 - b1)


def bound_of(m: jax.Array, u: jax.Array) -> jax.Array:
    """Return the bound for one leaf with float32 moments from elsewhere."""
    # Infinite moments, ∞ / ∞, are the end of the range: as if from one large gradient.
    ratio = jnp.where(jnp.isinf(m), 1.0, jnp.abs(m) / u)
    largest = jnp.max(ratio, initial=_BOUND_MIN, where=jnp.isfinite(ratio))
    return jnp.minimum(largest, BOUND_MAX)


def _join(ratio, norm):
    # XLA on CPU computes a final `or` of two words once: the step moves 18 bytes per
    # parameter and needs no temporaries. An int32 sum, converted last, would be
    # recomputed in every reader.
    return (ratio.astype(jnp.uint16) << 8) | norm.astype(jnp.uint16)


def _norm(code):
    return from_bits((code << _NORM_DROP) + _NORM_LOW)


def _norm_code(v):
    half = int(_NORM_HALF * 2**_NORM_DROP)
    code = (to_bits(v) - (_NORM_LOW - half)) >> _NORM_DROP
    return jnp.where(v != v, _NORM_NAN, jnp.clip(code, 0, _NORM_MAX))


def _ratio(word, bound):
    code = (word >> 8) & 0x7F
    # The bits of x are 4, then 1, then 2 fine steps from code to code.
    coarse = 4 * code
    fine = code + _FINE_FROM * 3 // 4
    steps = jnp.maximum(jnp.minimum(coarse, fine), 2 * code + _TOP)
    x = from_bits((steps << _RATIO_STEP) + _RATIO_ONE)
    magnitude = (x - 1.0) * (bound * _UNIT)
    return from_bits(to_bits(magnitude) | ((word & 0x8000) << 16))


def _ratio_code(m, v, bound, random):
    # The only division, used once: XLA on CPU would write a quotient that is used twice
    # to memory, and give a division of scalars a kernel of its own.
    x = jnp.minimum(jnp.abs(m) / (v * (bound * _UNIT)) + 1.0, _RATIO_MAX)
    # The inverse of the lines in `_ratio`, times 4, to round a code of any width.
    bits = to_bits(x) - _RATIO_ONE
    fine = 4 * bits - (3 * _FINE_FROM << _RATIO_STEP)
    top = 2 * bits - (2 * _TOP << _RATIO_STEP)
    bits = jnp.minimum(jnp.maximum(bits, fine), top)
    code = drop_at_random(bits, _RATIO_STEP + 2, random)
    return (code & 0x7F) | ((to_bits(m) >> 24) & 0x80)
