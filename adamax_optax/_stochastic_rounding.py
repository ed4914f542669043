"""Stochastic rounding of half-precision parameters, as the last link of a chain."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamax_optax._checks import (
    check_fit,
    check_inexact,
    check_seed,
    leaf_name,
    pairs,
)
from adamax_optax._dtypes import leaf_dtype
from adamax_optax._rounding import leaf_key, noise, round_to_neighbour
from adamax_optax._sharding import replicated_beside


class StochasticRoundingState(NamedTuple):
    """The step count and seed from which the noise is made.

    Attributes:
      count: Steps taken; int32, shape (). When it wraps, the noise repeats.
      seed: uint32, shape ().
    """

    # Optax's name, which hides the method `tuple.count`.
    count: jax.Array  # type: ignore[assignment]
    seed: jax.Array


def stochastic_rounding(seed: int = 0) -> optax.GradientTransformation:
    """Round params + updates up or down at random for half-precision parameters.

    A bfloat16 parameter has 8 significant bits, so rounding p + update to nearest drops
    an update of less than 1/512 of p, at every step, and training stalls. This link,
    which must come last, picks one of the two neighbours of p + update in p's dtype at
    random, such that the mean is p + update::

        p' = p + update, rounded up or down at random
        update = p' - p

    Complex leaves and leaves of float32 or wider pass unchanged.

    Args:
      seed: Seed of the noise, in [0, 2^32). The noise depends on the seed, the step,
        the leaf and the element's position, not on how the array is sharded.

    Returns:
      A transformation with the state `StochasticRoundingState`. Updates of bfloat16 and
      float16 parameters come out in float32, in which they are exact, so
      `optax.apply_updates` gives exactly p'. A finite sum never becomes infinite, and
      an update of 0 leaves p unchanged. Wrappers that need updates in the gradients'
      dtype go inside the chain:
      ``optax.chain(optax.apply_if_finite(tx, 5), ao.stochastic_rounding())``.

    Raises:
      ValueError: If `seed` is out of range; in `update`, if `params` was not passed or
        does not fit the updates.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp, optax
      >>> tx = optax.chain(optax.sgd(1e-3), ao.stochastic_rounding(seed=0))
      >>> p = jnp.ones(10_000, jnp.bfloat16)
      >>> g = jnp.ones(10_000, jnp.bfloat16)
      >>> updates, _ = tx.update(g, tx.init(p), p)
      >>> p = optax.apply_updates(p, updates).astype(jnp.float32)
      >>> print(f"{p.min()} {p.max()} {p.mean():.4f}")
      0.99609375 1.0 0.9990

    References:
      Gupta et al., `Deep Learning with Limited Numerical Precision
      <https://arxiv.org/abs/1502.02551>`_, 2015, section 3.
    """
    check_seed(seed)

    def init_fn(params):
        return StochasticRoundingState(
            count=replicated_beside(params, 0, jnp.int32),
            seed=replicated_beside(params, seed, jnp.uint32),
        )

    def update_fn(updates, state, params=None):
        if params is None:
            raise ValueError(
                "stochastic_rounding needs the parameters: call "
                "update(gradients, state, params)."
            )
        # Mixed, so that nearby seeds or counts do not give nearby keys.
        key = leaf_key(state.seed, 1) ^ leaf_key(state.count.astype(jnp.uint32), 2)
        leaves = pairs(
            updates,
            params,
            "The parameters passed to update do not have the structure of the updates",
        )
        rounded = [
            _round_sum(path, update, param, leaf_key(key, i))
            for i, (path, update, param) in enumerate(leaves)
        ]
        treedef: Any = jax.tree.structure(updates, is_leaf=lambda x: x is None)
        state = StochasticRoundingState(count=state.count + 1, seed=state.seed)
        return treedef.unflatten(rounded), state

    return optax.GradientTransformation(init_fn, update_fn)


def _round_sum(path, update, param, key):
    """Return p' - p in float32, with p' = p + update rounded at random."""
    if update is None or not _is_half(param):
        return update
    check_inexact(path, update, "update")
    name = f"The update at {leaf_name(path)}"
    check_fit(name, update, param, "parameter passed to update")
    wide = jnp.asarray(param, jnp.float32)
    exact = wide + jnp.asarray(update, jnp.float32)
    return round_to_neighbour(exact, param.dtype, noise(exact, key)) - wide


def _is_half(param):
    dtype = leaf_dtype(param)
    is_real = dtype is not None and jnp.issubdtype(dtype, jnp.floating)
    return is_real and jnp.finfo(dtype).bits == 16
