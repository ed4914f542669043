"""m and u in bfloat16 or float16: 4 bytes of state per parameter."""

from typing import Any

import jax.numpy as jnp

from adamax_optax._float_bits import (
    power_of_two,
    round_at_random,
    round_to_nearest,
    to_bits,
)


class HalfCodes:
    """Two arrays of one 16-bit float dtype: m, rounded at random, and v = u / s.

    bfloat16 has float32's exponents and takes m and v as they are. float16 has 30
    octaves, too few for ε = 1e-8 and gradients of 1e8 together, so it holds the signed
    square roots of m and v: 60 octaves. v stays within normal numbers and gradients
    within a range in which no denominator is ever 0 or infinite.

    Each array is computed from itself and the gradient alone, in place, and ends in an
    operation with two operands: what ends in a chain of conversions XLA on CPU repeats
    in every loop that reads it.
    """

    def __init__(self, dtype: Any) -> None:
        self.dtype = jnp.dtype(dtype)
        self.root = self.dtype == jnp.float16
        # The least code of v, the largest v, and the largest modulus of a gradient.
        self.low, self.high, self.top = (
            (2.0**-14, 2.0**31, 2.0**30)
            if self.root
            else (2.0**-100, 2.0**121, 2.0**120)
        )
        self.initial = (0.0, self.low)  # m = 0 and the least v

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HalfCodes) and other.dtype == self.dtype

    def __hash__(self) -> int:
        return hash(self.dtype)

    def step(self, g, codes, old_scale, scale, quarterings, b1, b2, eps, random):
        """Return the codes after one gradient; `scale` is s, decayed already."""
        mean, norm = codes
        g = jnp.clip(g, -self.top, self.top)  # NaN stays, and shows in m
        m = b1 * self._decode(mean) + (1 - b1) * g  # m ← β1 m + (1 - β1) g
        half = power_of_two(-quarterings)
        kept = norm.astype(jnp.float32) * (half if self.root else half * half)
        new = (jnp.abs(g) + eps) * (1 / scale)  # v ← max(v, (|g| + ε) / s)
        return self._encode_mean(m, random), self._larger_norm(kept, new)

    def ratio(self, codes, scale, b1, b2):
        """Return m / u, float32."""
        m, u = self.moments(codes, scale, b1, b2)
        return m / u

    def moments(self, codes, scale, b1, b2):
        """Return m and u, float32."""
        mean, norm = codes
        return self._decode(mean), self._decode(norm) * scale

    def encode(self, m, u, scale, b1, b2, random):
        """Return the codes of given moments."""
        return self._encode_mean(m, random), self._larger_norm(
            jnp.float32(0), u / scale
        )

    def _decode(self, code):
        x = code.astype(jnp.float32)
        return x * jnp.abs(x) if self.root else x

    def _encode_mean(self, m, random):
        if not self.root:
            return round_at_random(m, self.dtype, random)
        root = round_at_random(jnp.sqrt(jnp.abs(m)), self.dtype, random)
        # By the sign bit, so that what underflows to -0.0 is coded again as itself.
        return jnp.where(to_bits(m) < 0, -root, root)

    def _larger_norm(self, kept, new):
        """Return the code of the larger of v, whose code `kept` is, and `new`."""
        kept = jnp.maximum(kept, self.low)
        new = jnp.minimum(new, self.high)
        if not self.root:
            return round_to_nearest(jnp.maximum(kept, new), self.dtype)
        # Coded anew only where exceeded, so that no value is rounded twice. There the
        # larger is `new`; it is sharded as the state is, even if that alone is divided.
        larger = jnp.maximum(new, kept * kept)
        return jnp.where(
            new > kept * kept,
            round_to_nearest(jnp.sqrt(larger), self.dtype),
            kept.astype(self.dtype),
        )
