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

LARGEST_COUNT = 2**31 - 1  # step counts stop here


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
        # Round an array b1 to the real dtype of the leaf, as the mean does.
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
    """Return 1 - b1^t.

    It is -expm1(t ln b1): expm1 avoids cancellation when b1 is near 1. The logarithm
    of a Python number is taken in 64 bits.
    """
    dtype = jnp.result_type(float)
    t = count.astype(dtype)
    if isinstance(b1, int | float):
        return -jnp.expm1(t * (math.log(b1) if b1 > 0 else -math.inf))
    return _traced_weight(b1.astype(dtype), t)


@jax.custom_jvp
def _traced_weight(b1, t):
    return -jnp.expm1(t * jnp.log(b1))


@_traced_weight.defjvp
def _(primals, tangents):
    # Not the derivative of expm1, which loses all digits where b1^t is small, and is
    # NaN at b1 = 0.
    b1, t = primals
    return _traced_weight(b1, t), -t * _power(b1, t - 1) * tangents[0]


@jax.custom_jvp
def _power(b1, n):
    return b1**n


@_power.defjvp
def _(primals, tangents):
    b1, n = primals
    return _power(b1, n), n * _power(b1, jnp.maximum(n - 1, 0)) * tangents[0]
