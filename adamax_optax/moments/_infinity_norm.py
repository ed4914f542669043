"""The first moment over the infinity norm: g -> m / u."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamax_optax._checks import (
    check_decay_rate,
    check_gradients,
    check_inexact,
    check_range,
)
from adamax_optax._dtypes import (
    StateDType,
    compute_dtype,
    decayed_mean,
    real_dtype,
    scalar,
)
from adamax_optax._sharding import filled_like
from adamax_optax.moments._reduced_norm import (
    check_state,
    codec_for,
    reduced_infinity_norm,
)


class ScaleByInfinityNormState(NamedTuple):
    """The two moments of Adamax, each a tree with the structure of the parameters.

    Attributes:
      mu: The paper's m, the decayed mean of the gradients; the parameter's shape and
        dtype, but at least float32.
      nu: The paper's u, the decayed maximum of their moduli; the parameter's shape,
        real, at least float32.
    """

    mu: optax.Updates
    nu: optax.Updates


def scale_by_infinity_norm(
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    *,
    eps_outside: jax.typing.ArrayLike = 0.0,
    state_dtype: StateDType = None,
) -> optax.GradientTransformation:
    """Divide the mean of past gradients by their infinity norm.

    At each step::

        m <- b1 m + (1 - b1) g
        u <- max(b2 u, |g| + eps)
        update = m / (u + eps_outside)

    Args:
      b1: Decay rate of the mean, in [0, 1); may be traced.
      b2: Decay rate of the infinity norm, in [0, 1); may be traced.
      eps: Added to every |g| inside the maximum, at least 0; may be traced.
      eps_outside: Added to u in the denominator, at least 0; may be traced.
      state_dtype: How the moments are stored; see `adamax`.

    Returns:
      A transformation whose state is a `ScaleByInfinityNormState`, or with a
      `state_dtype` a `ScaleByReducedInfinityNormState`. Updates have the dtype and
      shape of the gradients. If the denominator is 0 (``eps=0`` and no gradient so
      far), the update is 0. A leaf whose gradient is `None` keeps its moments.

    Raises:
      ValueError: If a hyperparameter is out of range, `state_dtype` is none of these,
        a parameter is neither floating nor complex, or is complex and has a
        `state_dtype`, or the gradients do not fit the parameters.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> link = ao.scale_by_infinity_norm(b1=0.5, b2=0.5, eps=0.0)
      >>> state = link.init(jnp.zeros(2))
      >>> _, state = link.update(jnp.array([4.0, 0.0]), state)
      >>> update, state = link.update(jnp.array([1.0, 8.0]), state)
      >>> print(state.mu, state.nu, update)
      [1.5 4. ] [2. 8.] [0.75 0.5 ]

    References:
      Kingma & Ba, `Adam: A Method for Stochastic Optimization
      <https://arxiv.org/abs/1412.6980>`_, 2014, section 7.1, Algorithm 2.
    """
    check_decay_rate("b1", b1)
    check_decay_rate("b2", b2)
    check_range("eps", eps)
    check_range("eps_outside", eps_outside)
    if state_dtype is not None:
        return reduced_infinity_norm(codec_for(state_dtype), b1, b2, eps, eps_outside)

    def init_fn(params):
        def zeros(path, p):
            check_inexact(path, p, "parameter")
            return filled_like(p, 0, compute_dtype(jnp.result_type(p)))

        mu = jax.tree_util.tree_map_with_path(zeros, params)
        nu = jax.tree.map(lambda m: filled_like(m, 0, real_dtype(m.dtype)), mu)
        return ScaleByInfinityNormState(mu=mu, nu=nu)

    def update_fn(updates, state, params=None):
        del params
        check_state(state, None)
        check_gradients(updates, state.mu)

        # m_t = β1 m_{t-1} + (1 - β1) g_t
        def first_moment(g, m):
            decay = scalar(b1, m.dtype)  # before 1 - β1, so that it is not narrow
            return decayed_mean(m, jnp.asarray(g, m.dtype), decay)

        # u_t = max(β2 u_{t-1}, |g_t| + ε)
        def infinity_norm(g, m, u):
            modulus = jnp.abs(jnp.asarray(g, m.dtype))
            return jnp.maximum(scalar(b2, u.dtype) * u, modulus + scalar(eps, u.dtype))

        # m_t / u_t, and 0 for 0 / 0. The inner `where` keeps the unused branch finite,
        # and with it the derivatives.
        def ratio(g, m, u):
            u = u + scalar(eps_outside, u.dtype)
            is_zero = u == 0
            quotient = m / jnp.where(is_zero, 1, u).astype(m.dtype)
            return jnp.where(is_zero, 0, quotient).astype(jnp.result_type(g))

        mu = _map(first_moment, updates, state.mu, otherwise=state.mu)
        nu = _map(infinity_norm, updates, state.mu, state.nu, otherwise=state.nu)
        updates = _map(ratio, updates, mu, nu, otherwise=updates)
        return updates, ScaleByInfinityNormState(mu=mu, nu=nu)

    return optax.GradientTransformation(init_fn, update_fn)


def _map(fn, gradients, *trees, otherwise):
    """Map `fn` over the gradients; where one is `None`, return `otherwise`'s leaf."""
    return jax.tree.map(
        lambda g, other, *rest: other if g is None else fn(g, *rest),
        gradients,
        otherwise,
        *trees,
        is_leaf=lambda x: x is None,
    )
