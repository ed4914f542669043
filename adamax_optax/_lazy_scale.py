"""The lazily scaled norm: u = s v, where only the scalar s decays."""

import jax
import jax.numpy as jnp

from adamax_optax._float_bits import BIAS, MANTISSA, from_bits, to_bits


def decay_scale(
    scale: jax.Array, b2: jax.typing.ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Decay all norms at once by decaying the scalar that they share.

    u_t = max(β2 u_{t-1}, |g| + ε) with u = s v is s ← β2 s, v ← max(v, (|g| + ε) / s):
    v changes only where a gradient exceeds it, each value is rounded once, and decay
    is exact however coarse v's dtype is. When s falls under 1/2, s is multiplied and
    every v divided by 4, which is exact in binary, for the square root of v too.

    Args:
      scale: s, float32, shape (), in [1/2, 2).
      b2: β2. 0 is taken as 2^-64: no memory either, within the range of the codes.

    Returns:
      The new s in [1/2, 2), and the int32 q ≥ 0 so that every v must be divided by
      4^q. q is 0 but for one step in 1386 at β2 = 0.999.
    """
    scale = scale * jnp.maximum(jnp.asarray(b2, jnp.float32), 2.0**-64)
    exponent = (to_bits(scale) >> MANTISSA) - BIAS  # 2^exponent ≤ s
    quarterings = -exponent >> 1
    return from_bits(to_bits(scale) + (quarterings << (MANTISSA + 1))), quarterings
