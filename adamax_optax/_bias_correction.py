"""Bias correction of a decayed mean that starts at zero: x -> x / (1 - b1^t)."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamax_optax._checks import check_decay_rate, check_inexact
from adamax_optax._dtypes import compute_dtype
from adamax_optax._sharding import replicated_beside

LARGEST_COUNT = 2**31 - 1  # at which a step count stays


class ScaleByBiasCorrectionState(NamedTuple):
    """The number of steps taken.

    Attributes:
      count: The paper's t; shape (), int32. It stops at the largest int32.
    """

    # Optax's name, which hides the method `tuple.count`.
    count: jax.Array  # type: ignore[assignment]


def scale_by_bias_correction(
    b1: jax.typing.ArrayLike = 0.9,
) -> optax.GradientTransformation:
    """Divide by the total weight that a decayed mean has given to gradients so far.

    At step t = 1, 2, ...::

        update = x / (1 - b1^t)

    Args:
      b1: Decay rate of the mean, in [0, 1); may be traced.

    Returns:
      A transformation with the state `ScaleByBiasCorrectionState`. Updates keep their
      dtype and shape.

    Raises:
      ValueError: If `b1` is out of range; in `update`, if a leaf is not floating or
        complex.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> link = ao.scale_by_bias_correction(b1=0.5)
      >>> state = link.init(None)
      >>> for _ in range(3):
      ...     x, state = link.update(jnp.array(1.0), state)
      ...     print(int(state.count), round(float(x), 4))
      1 2.0
      2 1.3333
      3 1.1429

    References:
      Kingma & Ba, `Adam: A Method for Stochastic Optimization
      <https://arxiv.org/abs/1412.6980>`_, 2014, section 3.
    """
    check_decay_rate("b1", b1)

    def init_fn(params):
        return ScaleByBiasCorrectionState(count=replicated_beside(params, 0, jnp.int32))

    def update_fn(updates, state, params=None):
        del params
        count = jnp.asarray(optax.safe_increment(state.count))
        # 1 - β1^t = -expm1(t ln β1): expm1 avoids cancellation when β1 is near 1.
        correction = -jnp.expm1(count.astype(jnp.result_type(float)) * _log(b1))

        def correct(path, x):
            check_inexact(path, x, "update")
            dtype = compute_dtype(jnp.result_type(x))
            quotient = jnp.asarray(x, dtype) / correction.astype(dtype)
            return quotient.astype(jnp.result_type(x))

        updates = jax.tree_util.tree_map_with_path(correct, updates)
        return updates, ScaleByBiasCorrectionState(count=count)

    return optax.GradientTransformation(init_fn, update_fn)


def _log(b1):
    """Return ln b1, in 64 bits if b1 is a Python number; -inf for 0."""
    if isinstance(b1, int | float):
        return math.log(b1) if b1 > 0 else -math.inf
    return jnp.log(jnp.asarray(b1, jnp.result_type(float)))
