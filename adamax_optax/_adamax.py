"""The optimizers, as chains that read like the equations."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamax_optax._bias_correction import scale_by_bias_correction
from adamax_optax._checks import (
    check_flag,
    check_learning_rate,
    check_params,
    check_range,
    checked_mask,
)
from adamax_optax._dtypes import StateDType, in_compute_dtype
from adamax_optax.moments import scale_by_infinity_norm

# As in Optax: no type describes a tree of booleans.
Mask = Any | Callable[[optax.Params], Any] | None


def adamax(
    learning_rate: optax.ScalarOrSchedule = 2e-3,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    maximize: bool | jax.Array = False,
    eps_outside: jax.typing.ArrayLike = 0.0,
    state_dtype: StateDType = None,
) -> optax.GradientTransformationExtraArgs:
    """Adamax with the weight decay in the gradient, as in MindSpore and PyTorch.

    One step, for t = 1, 2, ...::

        g <- -g                                    if maximize
        g <- g + weight_decay * p                  coupled: enters m and u
        m <- b1 m + (1 - b1) g
        u <- max(b2 u, |g| + eps)
        p <- p - learning_rate * m / ((1 - b1^t) (u + eps_outside))

    The results are those of `mindspore.experimental.optim.Adamax` and
    `torch.optim.Adamax`, and without weight decay those of `optax.adamax`.

    Args:
      learning_rate: The paper's alpha: a number of at least 0, an array of shape (),
        or a schedule. A schedule is evaluated at the count before the step, so the
        first step uses ``schedule(0)``.
      b1: Decay rate of the mean of the gradients, in [0, 1).
      b2: Decay rate of their infinity norm, in [0, 1).
      eps: Added to every |g| inside the maximum, at least 0.
      weight_decay: Coefficient of the coupled L2 penalty, at least 0: a number, an
        array of shape (), or a schedule.
      mask: The leaves that decay: a tree of booleans with the structure of the
        parameters or a prefix of it, or a function from the parameters to such a tree.
        `None` means all leaves.
      maximize: Whether to ascend. The gradient is negated before the decay is added.
      eps_outside: Added to u in the denominator, at least 0. With ``eps=0.0``
        this is the rule of Keras, TensorFlow and `mindspore.nn.AdaMax`.
      state_dtype: How the moments are stored. `None`: in the parameters' dtype, but at
        least float32 (8 bytes per parameter). `jnp.bfloat16` or `jnp.float16`: 4 bytes.
        `jnp.uint16`: 2 bytes, both in one word; noisier as b1 approaches 1, or
        approaches or exceeds b2, and short of the mean step for b2 near 0.

    All but `mask` and `state_dtype` may be traced, `b1` and `b2` as float32 or wider.
    Under `optax.inject_hyperparams`, list `state_dtype` in `static_args`; for
    half-precision parameters, also pass ``hyperparam_dtype=jnp.float32``.

    Returns:
      The transformation. Its state is a chain's, which contains a
      `ScaleByInfinityNormState` (`mu`, `nu`), or a `ScaleByReducedInfinityNormState`
      if `state_dtype` is not `None`, and a `ScaleByBiasCorrectionState` (`count`).
      Read them by name: ``optax.tree_utils.tree_get(state, "mu")``. A leaf whose
      gradient is `None` keeps its moments exactly.
      Arithmetic runs in at least float32; updates are rounded once, to the gradients'
      dtype. Complex leaves have a real u, the norm of their moduli.
      Derivatives through training are exact with ``state_dtype=None``. With reduced
      state, m / u is a constant: derivatives flow only through each step's learning
      rate, bias correction and (`adamaxw`) decay.

    Raises:
      ValueError: If a hyperparameter is out of range; in `update`, if there is a
        weight decay and `params` was not passed, or if the gradients do not fit.

    Example:
      >>> import adamax_optax as ao, jax, jax.numpy as jnp, optax
      >>> tx = ao.adamax(learning_rate=0.1, weight_decay=0.5)
      >>> p = jnp.array([1.0, -2.0])
      >>> state = tx.init(p)
      >>> for _ in range(300):
      ...     g = jax.grad(lambda p: jnp.sum((p - 3.0) ** 2))(p)
      ...     updates, state = tx.update(g, state, p)
      ...     p = optax.apply_updates(p, updates)
      >>> print(f"{p[0]:.3f} {p[1]:.3f}")  # the root of 2 (p - 3) + 0.5 p
      2.400 2.400

    References:
      Kingma & Ba, `Adam: A Method for Stochastic Optimization
      <https://arxiv.org/abs/1412.6980>`_, 2014, section 7.1, Algorithm 2.
    """
    check_learning_rate(learning_rate)
    return in_compute_dtype(
        optax.chain(
            _ascent(maximize),  # g ← -g
            _decay(weight_decay, mask),  # g ← g + λ θ
            scale_by_infinity_norm(  # m / u
                b1, b2, eps, eps_outside=eps_outside, state_dtype=state_dtype
            ),
            scale_by_bias_correction(b1),  # m / ((1 - β1^t) u)
            optax.scale_by_learning_rate(learning_rate),  # -γ m / ((1 - β1^t) u)
        )
    )


def adamaxw(
    learning_rate: optax.ScalarOrSchedule = 2e-3,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    maximize: bool | jax.Array = False,
    eps_outside: jax.typing.ArrayLike = 0.0,
    state_dtype: StateDType = None,
) -> optax.GradientTransformationExtraArgs:
    """Adamax with decoupled weight decay: a drop-in for `optax.adamaxw`.

    Like `adamax`, except that the decay does not enter the moments::

        p <- p - learning_rate * (m / ((1 - b1^t) (u + eps_outside)) + weight_decay * p)

    Args:
      learning_rate: See `adamax`.
      b1: See `adamax`.
      b2: See `adamax`.
      eps: See `adamax`.
      weight_decay: Coefficient of the decoupled decay, at least 0: a number, an array
        of shape (), or a schedule. It is multiplied by the learning rate.
      mask: See `adamax`.
      maximize: Whether to ascend. The parameters decay in either case.
      eps_outside: See `adamax`.
      state_dtype: See `adamax`.

    Returns:
      The transformation; see `adamax`.

    Raises:
      ValueError: See `adamax`.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> tx = ao.adamaxw(learning_rate=0.1, weight_decay=0.5)
      >>> p = jnp.array([1.0])
      >>> updates, _ = tx.update(jnp.array([3.0]), tx.init(p), p)
      >>> print(f"{updates[0]:.4f}")
      -0.1500

    References:
      Loshchilov & Hutter, `Decoupled Weight Decay Regularization
      <https://arxiv.org/abs/1711.05101>`_, 2019.
    """
    check_learning_rate(learning_rate)
    return in_compute_dtype(
        optax.chain(
            _ascent(maximize),  # g ← -g
            scale_by_infinity_norm(  # m / u
                b1, b2, eps, eps_outside=eps_outside, state_dtype=state_dtype
            ),
            scale_by_bias_correction(b1),  # m / ((1 - β1^t) u)
            _decay(weight_decay, mask),  # m / ((1 - β1^t) u) + λ θ
            optax.scale_by_learning_rate(learning_rate),  # -γ (… + λ θ)
        )
    )


def scale_by_adamax(
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    *,
    eps_outside: jax.typing.ArrayLike = 0.0,
    state_dtype: StateDType = None,
) -> optax.GradientTransformationExtraArgs:
    """Rescale gradients as Adamax does: a drop-in for `optax.scale_by_adamax`.

    `scale_by_infinity_norm` and `scale_by_bias_correction`, chained::

        update = m / ((1 - b1^t) (u + eps_outside))

    Args:
      b1: See `adamax`.
      b2: See `adamax`.
      eps: See `adamax`.
      eps_outside: See `adamax`.
      state_dtype: See `adamax`.

    Returns:
      The transformation; see `adamax`.

    Raises:
      ValueError: See `scale_by_infinity_norm`.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> tx = ao.scale_by_adamax()
      >>> updates, _ = tx.update(jnp.array([3.0, -0.2]), tx.init(jnp.zeros(2)))
      >>> print(f"{updates[0]:.4f} {updates[1]:.4f}")
      1.0000 -1.0000
    """
    return in_compute_dtype(
        optax.chain(
            scale_by_infinity_norm(  # m / u
                b1, b2, eps, eps_outside=eps_outside, state_dtype=state_dtype
            ),
            scale_by_bias_correction(b1),  # m / ((1 - β1^t) u)
        )
    )


def _ascent(maximize):
    """Return the link that negates the gradient if `maximize` is true."""
    check_flag("maximize", maximize)
    if isinstance(maximize, bool):
        return optax.scale(-1.0) if maximize else optax.identity()
    # An array may change from step to step without recompilation.
    return optax.scale(jnp.where(maximize, -1.0, 1.0))


def _decay(weight_decay, mask):
    """Return the link that adds λ θ; the identity, which needs no θ, if λ is 0."""
    check_range("weight_decay", weight_decay, schedule=True)
    if isinstance(weight_decay, int | float) and weight_decay == 0:
        return optax.identity()
    mask = None if mask is None else checked_mask(mask)
    decay = optax.add_decayed_weights(weight_decay, mask)

    def update_fn(updates, state, params=None):
        if params is None:
            raise ValueError(
                f"weight_decay={weight_decay!r} needs the parameters: call "
                "update(gradients, state, params)."
            )
        check_params(updates, params)
        return decay.update(updates, state, params)

    return optax.GradientTransformation(decay.init, update_fn)
