"""Stochastic rounding of half-precision parameters, around any transformation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamax_optax._checks import (
    check_fit,
    check_inexact,
    check_seed,
    check_transformation,
    leaf_name,
    pairs,
)
from adamax_optax._dtypes import leaf_dtype, widened
from adamax_optax._rounding import (
    leaf_key,
    leaf_keys,
    next_key,
    noise,
    spacing,
    uniform,
)
from adamax_optax._sharding import replicated_beside, zeros_like


class StochasticRoundingState(NamedTuple):
    """The state of the wrapped transformation, and the key of the noise.

    Attributes:
      inner_state: The state of the wrapped transformation.
      rounding_key: New at each step; uint32, shape ().
    """

    inner_state: optax.OptState
    rounding_key: jax.Array


def stochastic_rounding(
    tx: optax.GradientTransformation, seed: int = 0
) -> optax.GradientTransformationExtraArgs:
    """Round params + updates up or down at random for half-precision parameters.

    A bfloat16 parameter has 8 significant bits, so rounding p + update to nearest drops
    an update of less than 1/512 of p, at every step, and training stalls. This wrapper
    runs `tx` in float32 and picks one of the two neighbours of p + update in p's dtype
    at random, such that the mean is p + update::

        p' = p + update, rounded up or down at random
        update = p' - p

    For bfloat16 and float16 parameters, updates have the parameters' dtype, so
    parameters keep theirs whatever adds them: `optax.apply_updates`,
    `equinox.apply_updates` or ``p + update``.

    Args:
      tx: Any transformation. It receives gradients and parameters in at least float32,
        and its state is that of float32 parameters, so that nothing is rounded on the
        way. `optax.apply_if_finite` belongs inside: around this wrapper it fails if
        the gradients have another dtype than the parameters.
      seed: Seed of the noise, in [0, 2^32). The noise depends on the seed, the step,
        the leaf's path and the element's position, not on how the array is sharded.

    Returns:
      A transformation with the state `StochasticRoundingState`. For bfloat16 and
      float16 parameters, the sum of p and the update is p' exactly if
      ``|update| <= |p| / 2``. A larger update may not reach the neighbours of p +
      update by an addition in p's dtype. Then the sum is one of two numbers that can
      be reached, and its mean is p + update: see docs/low_precision.md, also for sums
      near 0 or beyond the largest finite number. An update of 0 leaves p unchanged, but
      -0.0 becomes 0.0. All other leaves (float32 or wider, 8-bit floats, complex
      numbers, integers) keep the updates of `tx`.

    Raises:
      ValueError: If `tx` is not a transformation or `seed` is out of range; in
        `update`, if `params` was not passed or does not fit the updates.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp, optax
      >>> tx = ao.stochastic_rounding(optax.sgd(1e-3), seed=0)
      >>> p = jnp.ones(10_000, jnp.bfloat16)
      >>> g = jnp.ones(10_000, jnp.bfloat16)
      >>> updates, _ = tx.update(g, tx.init(p), p)
      >>> p = optax.apply_updates(p, updates)
      >>> wide = p.astype(jnp.float32)
      >>> print(f"{wide.min()} {wide.max()} {wide.mean():.4f} {p.dtype}")
      0.99609375 1.0 0.9990 bfloat16

    References:
      Gupta et al., `Deep Learning with Limited Numerical Precision
      <https://arxiv.org/abs/1502.02551>`_, 2015, section 3.
    """
    check_transformation("tx", tx)
    check_seed(seed)
    inner = optax.with_extra_args_support(tx)

    def init_fn(params):
        first = replicated_beside(params, seed, jnp.uint32)
        return StochasticRoundingState(
            inner_state=inner.init(widened(params)),
            # Mixed, so that nearby seeds do not give nearby keys.
            rounding_key=leaf_key(first, 1),
        )

    def update_fn(updates, state, params=None, **extra_args):
        if params is None:
            raise ValueError(
                "stochastic_rounding needs the parameters: call "
                "update(gradients, state, params)."
            )
        updates, inner_state = inner.update(
            widened(updates), state.inner_state, widened(params), **extra_args
        )
        leaves = pairs(
            updates,
            params,
            "The parameters passed to update do not have the structure of the updates",
        )
        present = [leaf for leaf in leaves if leaf[1] is not None]
        keys = leaf_keys(state.rounding_key, updates)
        rounded = [_rounded(*leaf, keys[i]) for i, leaf in enumerate(present)]
        treedef: Any = jax.tree.structure(updates)
        state = StochasticRoundingState(inner_state, next_key(state.rounding_key))
        return treedef.unflatten(rounded), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _rounded(path, update, param, key):
    """Return an update in the dtype of its parameter, if that is a half precision."""
    if leaf_dtype(param) not in (jnp.bfloat16, jnp.float16):
        return update
    check_inexact(path, update, "update")
    name = f"The update at {leaf_name(path)}"
    check_fit(name, update, param, "parameter passed to update")
    update = jnp.asarray(update, jnp.float32)
    # On an explicit mesh, it gets the update's sharding.
    wide = jnp.asarray(param, jnp.float32) + zeros_like(update, jnp.float32)
    total = wide + update
    random = noise(total, key)
    largest = float(jnp.finfo(param.dtype).max)
    addend = jnp.clip(update, -largest - wide, largest - wide)
    fine = spacing(wide + addend, param.dtype)
    # Adding a multiple of `fine` rounds p to `near`, so `rest` is what the update must
    # be on average.
    near = jnp.round(wide / fine) * fine
    near = jnp.where(spacing(wide, param.dtype) < fine, near, wide)
    rest = addend + (wide - near)
    # p' - p is at most 2 steps larger than `rest`.
    coarse = spacing(jnp.abs(rest) + 2 * fine, param.dtype)
    has_place = coarse < fine  # p' - p has one in p's dtype, to within fine / 4
    # Halfway between two multiples, p is rounded such that all sums are even.
    is_tie = ~has_place & (2 * jnp.abs(wide - near) == fine)
    grid = jnp.maximum(coarse, jnp.where(is_tie, 2 * fine, fine))
    down = jnp.floor(rest / grid) * grid + jnp.where(has_place, near - wide, 0)
    # The two sums as the addition will round them, and p + update between them.
    below, above = _sum(wide, down, param.dtype), _sum(wide, down + grid, param.dtype)
    # Divided by `grid` first, since differences may be subnormal.
    width = above / grid - below / grid
    part = (wide / grid - below / grid) + addend / grid
    up = (above <= largest) & ((below < -largest) | (uniform(random) * width < part))
    rounded = jnp.clip(jnp.where(up, down + grid, down), -largest, largest)
    return jnp.where(jnp.isfinite(total), rounded, total).astype(param.dtype)


def _sum(wide, update, dtype):
    """Return p + update, rounded to nearest as in p's dtype."""
    total = wide + update
    unit = spacing(total, dtype)
    # Next to 0 nothing is rounded.
    least = spacing(jnp.float32(0), dtype)
    return jnp.where(unit > least, jnp.round(total / unit) * unit, total)
