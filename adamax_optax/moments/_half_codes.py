"""m and u in bfloat16 or float16: 4 bytes of state per parameter."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from adamax_optax._dtypes import decayed_mean
from adamax_optax._rounding import (
    power_of_two,
    round_to_nearest,
    to_bfloat16_at_random,
    to_float16_at_random,
)

Codes = tuple[jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True)
class HalfCodes:
    """Two float arrays: m, rounded at random, and v = u / s, rounded to nearest.

    bfloat16 has the range of float32 and stores m and v as they are. float16 has 30
    octaves, too few for both ε = 1e-8 and gradients of 1e8, so it stores the square
    root of v and the signed square root of m: 60 octaves. v is clipped to normal
    numbers, and gradients so that no denominator is ever 0 or infinite.

    Each array depends only on itself and the gradient, so it can be updated in place.
    It ends in an operation with two operands, since XLA on CPU recomputes a trailing
    chain of conversions in every reader.

    Attributes:
      dtype: That of the arrays.
      root: Whether the square roots of m and v are stored.
      low: The smallest code of v.
      high: The largest v.
      bounded: Whether the codes need a bound on |m| / u.
    """

    dtype: Any
    root: bool
    low: float
    high: float
    bounded = False

    @property
    def initial(self) -> tuple[float, float]:
        """The codes before the first step: of m = 0 and the smallest v."""
        return 0.0, self.low

    def step(
        self,
        g: jax.Array,
        codes: Codes,
        inverse: jax.Array,
        quarterings: jax.Array,
        bounds: Any,
        b1: Any,
        b2: Any,
        eps: Any,
        random: jax.Array,
    ) -> Codes:
        """Return the codes after one gradient.

        `g` is float32, `inverse` 1 / s after the step, `quarterings` the q of
        `decay_scale`, `bounds` the bound before and after the step if `bounded`, and
        `random` uint32 noise of the gradient's shape; `b2` is more than 0.
        """
        mean, norm = codes
        g = self._clip(g)  # NaN passes, and shows in m
        m = decayed_mean(self._decode(mean), g, b1)  # m ← β1 m + (1 - β1) g
        half = power_of_two(-quarterings)
        kept = norm.astype(jnp.float32) * (half if self.root else half * half)
        new = (jnp.abs(g) + eps) * inverse  # v ← max(v, (|g| + ε) / s)
        return self._mean_code(m, random), self._larger_norm(kept, new)

    def ratio(self, codes: Codes, scale: jax.Array, bound: Any) -> jax.Array:
        """Return m / u, float32."""
        m, u = self.dequantize(codes, scale, bound)
        return m / u

    def dequantize(
        self, codes: Codes, scale: jax.Array, bound: Any
    ) -> tuple[jax.Array, jax.Array]:
        """Return m and u, float32."""
        mean, norm = codes
        return self._decode(mean), self._decode(norm) * scale

    def quantize(
        self,
        m: jax.Array,
        u: jax.Array,
        scale: jax.Array,
        bound: Any,
        random: jax.Array,
    ) -> Codes:
        """Return the codes of m and u."""
        norm = self._larger_norm(jnp.float32(0), u / scale)
        return self._mean_code(self._clip(m), random), norm

    def _clip(self, x: jax.Array) -> jax.Array:
        return jnp.clip(x, -self.high / 2, self.high / 2)

    def _decode(self, code: jax.Array) -> jax.Array:
        x = code.astype(jnp.float32)
        return x * jnp.abs(x) if self.root else x

    def _mean_code(self, m: jax.Array, random: jax.Array) -> jax.Array:
        if self.root:
            return to_float16_at_random(jnp.sqrt(jnp.abs(m)), m, random)
        return to_bfloat16_at_random(m, random)

    def _larger_norm(self, kept: jax.Array, new: jax.Array) -> jax.Array:
        """Return the code of max(v, new), where `kept` is the code of v."""
        kept = jnp.maximum(kept, self.low)
        new = jnp.minimum(new, self.high)
        if not self.root:
            return round_to_nearest(jnp.maximum(kept, new), self.dtype)
        # Re-encode only where `new` is larger, so nothing is rounded twice. Take the
        # root of the maximum, which is `new` there: it always has the state's sharding,
        # and `new` alone may not.
        larger = jnp.maximum(new, kept * kept)
        return jnp.where(
            new <= kept * kept,  # false where either is NaN, which `larger` keeps
            kept.astype(self.dtype),
            round_to_nearest(jnp.sqrt(larger), self.dtype),
        )


BFLOAT16 = HalfCodes(jnp.dtype(jnp.bfloat16), root=False, low=2.0**-100, high=2.0**121)
FLOAT16 = HalfCodes(jnp.dtype(jnp.float16), root=True, low=2.0**-14, high=2.0**31)
