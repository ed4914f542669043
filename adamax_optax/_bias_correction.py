"""Bias correction of a decayed mean that starts at zero: x -> x / (1 - b1^t)."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamax_optax._checks import check_decay_rate, check_inexact
from adamax_optax._dtypes import compute_dtype, real_dtype, scalar
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
        # The mean rounds an array b1 to the real dtype of its leaf, and so does this.
        weight = functools.cache(lambda dtype: _weight(scalar(b1, dtype), count))

        def correct(path, x):
            check_inexact(path, x, "update")
            dtype = compute_dtype(jnp.result_type(x))
            correction = weight(real_dtype(dtype)).astype(dtype)
            quotient = jnp.asarray(x, dtype) / correction
            return quotient.astype(jnp.result_type(x))

        updates = jax.tree_util.tree_map_with_path(correct, updates)
        return updates, ScaleByBiasCorrectionState(count=count)

    return optax.GradientTransformation(init_fn, update_fn)


def _weight(b1, count):
    """Return 1 - b1^t, with finite derivatives if b1 is an array.

    It is -expm1(t ln b1): expm1 avoids cancellation when b1 is near 1. A Python number
    has its logarithm taken in 64 bits.
    """
    dtype = jnp.result_type(float)
    t = count.astype(dtype)
    if isinstance(b1, int | float):
        return -jnp.expm1(t * (math.log(b1) if b1 > 0 else -math.inf))
    b1 = b1.astype(dtype)
    is_zero = b1 == 0
    # ln 0 has no derivative, and b1^t has: -1 at t = 1, when the weight is 1 - b1.
    weight = -jnp.expm1(t * jnp.log(jnp.where(is_zero, 1, b1)))
    return jnp.where(is_zero, 1 - b1**t, weight)
