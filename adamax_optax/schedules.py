r"""The curves of `adamax_optax.lr_scheduler` as Optax schedules.

A schedule is a function from the number of finished updates to the learning rate, which
Optax calls inside `jax.jit`: ``adamax(learning_rate=step_lr(0.1, 30))``. Its value at
count c is the learning rate that the class of that name has set after c `step()` calls,
alone on an optimizer whose learning rate is `base_lr`.

The classes are stepped once per epoch, Optax counts updates. With
``steps_per_epoch=n`` a schedule has at count c the value of epoch ``c // n``, as if the
class were stepped after every n updates; the other arguments then count epochs.

>>> import jax
>>> from adamax_optax import schedules
>>> schedule = jax.jit(schedules.step_lr(0.05, step_size=2, steps_per_epoch=10))
>>> print(*(f"{schedule(count):.3g}" for count in (0, 19, 20, 39, 40)))
0.05 0.05 0.005 0.005 0.0005

The arguments, defaults and ranges are the classes'. `base_lr` and the other numbers
that do not count epochs may be arrays, also traced ones (`jax.vmap` over `base_lr`),
whose range is then not checked. A schedule of `ReduceLROnPlateau` does not exist: it is
no function of the count (see `optax.contrib.reduce_on_plateau`).

Where Optax has the same curve, its numbers are these (`optax.linear_schedule`,
`optax.piecewise_constant_schedule`, `optax.exponential_decay` without ``staircase``;
`sequential_lr` is `optax.join_schedules`). Its staircase and its polynomials are not
used: compiled, they divide the count in floating point, so that
``exponential_decay(1.0, 41, 0.5, staircase=True)`` is one step late at count 41, and
``polynomial_schedule(1.0, 0.0, 0.5, 3)`` is NaN at count 3 (Optax 0.2.8).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from adamax_optax._checks import check_callable, check_int, check_real
from adamax_optax.lr_scheduler import _curves

__all__ = [
    "constant_lr",
    "cosine_annealing_lr",
    "cosine_annealing_warm_restarts",
    "cyclic_lr",
    "exponential_lr",
    "lambda_lr",
    "linear_lr",
    "multi_step_lr",
    "multiplicative_lr",
    "polynomial_lr",
    "sequential_lr",
    "step_lr",
]


def _per_epoch(curve: Callable[[Any], Any], steps_per_epoch: int) -> optax.Schedule:
    """Return count -> curve(⌊count / steps_per_epoch⌋)."""
    check_int("steps_per_epoch", steps_per_epoch, 1)

    def schedule(count: Any) -> Any:
        # `optax.join_schedules` evaluates every part at every count, so below 0 too,
        # where gamma**t may overflow and turn the gradient of the whole into NaN.
        return curve(jnp.maximum(count // steps_per_epoch, 0))

    return schedule


def _times(base_lr: ArrayLike, factor: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return t -> base_lr · factor(t)."""
    check_real("base_lr", base_lr, 0.0)
    return lambda t: base_lr * factor(t)


def step_lr(
    base_lr: ArrayLike,
    step_size: int,
    gamma: ArrayLike = 0.1,
    *,
    steps_per_epoch: int = 1,
) -> optax.Schedule:
    r"""Multiply the learning rate by `gamma` every `step_size` epochs.

    .. math:: \eta_t = \eta_0 \, \gamma^{\lfloor t / \text{step\_size} \rfloor}

    Args:
        base_lr: Initial learning rate, a number >= 0.
        step_size: Epochs between two decays, an int >= 1.
        gamma: Factor of a decay, a number >= 0, default 0.1.
        steps_per_epoch: Updates per epoch, an int >= 1, default 1.

    Returns:
        The schedule.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Example:
        >>> from adamax_optax import schedules
        >>> schedule = schedules.step_lr(0.05, step_size=2)
        >>> print(*(f"{schedule(count):.3g}" for count in range(6)))
        0.05 0.05 0.005 0.005 0.0005 0.0005
    """
    _curves.check_step(step_size, gamma)
    return _per_epoch(
        _times(
            base_lr,
            lambda t: _curves.geometric(
                gamma, _curves.step_decays(t, step_size), xp=jnp
            ),
        ),
        steps_per_epoch,
    )


def multi_step_lr(
    base_lr: ArrayLike,
    milestones: Sequence[int],
    gamma: ArrayLike = 0.1,
    *,
    steps_per_epoch: int = 1,
) -> optax.Schedule:
    r"""Multiply the learning rate by `gamma` at each of the milestones.

    .. math:: \eta_t = \eta_0 \, \gamma^{\#\{m \in \text{milestones}: m \le t\}}

    Args:
        base_lr: Initial learning rate, a number >= 0.
        milestones: The epochs, ints >= 0 in any order.
        gamma: Factor of a decay, a number >= 0, default 0.1.
        steps_per_epoch: Updates per epoch, an int >= 1, default 1.

    Returns:
        The schedule.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Example:
        >>> from adamax_optax import schedules
        >>> schedule = schedules.multi_step_lr(0.05, [2, 4])
        >>> print(*(f"{schedule(count):.3g}" for count in range(6)))
        0.05 0.05 0.005 0.005 0.0005 0.0005
    """
    _curves.check_milestones(milestones)
    _curves.check_gamma(gamma)
    milestones = list(milestones)
    return _per_epoch(
        _times(
            base_lr,
            lambda t: _curves.geometric(
                gamma, _curves.milestones_passed(t, milestones, xp=jnp), xp=jnp
            ),
        ),
        steps_per_epoch,
    )


def constant_lr(
    base_lr: ArrayLike,
    factor: ArrayLike = 1.0 / 3,
    total_iters: int = 5,
    *,
    steps_per_epoch: int = 1,
) -> optax.Schedule:
    r"""Multiply the learning rate by `factor` until epoch `total_iters`.

    .. math:: \eta_t = \eta_0 \cdot \begin{cases}
        \text{factor} & t < \text{total\_iters} \\ 1 & \text{otherwise} \end{cases}

    Args:
        base_lr: Learning rate from epoch `total_iters` on, a number >= 0.
        factor: A number in [0, 1], default 1/3.
        total_iters: An int >= 0, default 5.
        steps_per_epoch: Updates per epoch, an int >= 1, default 1.

    Returns:
        The schedule.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Example:
        >>> from adamax_optax import schedules
        >>> schedule = schedules.constant_lr(0.05, factor=0.5, total_iters=4)
        >>> print(*(f"{schedule(count):.3g}" for count in range(6)))
        0.025 0.025 0.025 0.025 0.05 0.05
    """
    _curves.check_constant(factor, total_iters)
    return _per_epoch(
        _times(
            base_lr,
            lambda t: _curves.constant_factor(t, factor, total_iters, xp=jnp),
        ),
        steps_per_epoch,
    )


def linear_lr(
    base_lr: ArrayLike,
    start_factor: ArrayLike = 1.0 / 3,
    end_factor: ArrayLike = 1.0,
    total_iters: int = 5,
    *,
    steps_per_epoch: int = 1,
) -> optax.Schedule:
    r"""Move the learning rate's factor from `start_factor` to `end_factor`.

    .. math:: \eta_t = \eta_0 \left(\text{start} + (\text{end} - \text{start})
        \frac{\min(t, \text{total\_iters})}{\text{total\_iters}}\right)

    Args:
        base_lr: Learning rate that the factors multiply, a number >= 0.
        start_factor: Factor at epoch 0, a number in (0, 1], default 1/3.
        end_factor: Factor from epoch `total_iters` on, a number in [0, 1], default 1.
        total_iters: Epochs from the one to the other, an int >= 0, default 5.
        steps_per_epoch: Updates per epoch, an int >= 1, default 1.

    Returns:
        The schedule.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Example:
        >>> from adamax_optax import schedules
        >>> schedule = schedules.linear_lr(0.05, start_factor=0.5, total_iters=4)
        >>> print(*(f"{schedule(count):.6g}" for count in range(6)))
        0.025 0.03125 0.0375 0.04375 0.05 0.05
    """
    _curves.check_linear(start_factor, end_factor, total_iters)
    return _per_epoch(
        _times(
            base_lr,
            lambda t: _curves.linear_factor(
                t, start_factor, end_factor, total_iters, xp=jnp
            ),
        ),
        steps_per_epoch,
    )


def exponential_lr(
    base_lr: ArrayLike, gamma: ArrayLike, *, steps_per_epoch: int = 1
) -> optax.Schedule:
    r"""Multiply the learning rate by `gamma` in every epoch.

    .. math:: \eta_t = \eta_0 \, \gamma^t

    Args:
        base_lr: Initial learning rate, a number >= 0.
        gamma: Factor of a decay, a number >= 0.
        steps_per_epoch: Updates per epoch, an int >= 1, default 1.

    Returns:
        The schedule.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Example:
        >>> from adamax_optax import schedules
        >>> schedule = schedules.exponential_lr(0.01, gamma=0.5)
        >>> print(*(f"{schedule(count):.3g}" for count in range(4)))
        0.01 0.005 0.0025 0.00125
    """
    _curves.check_gamma(gamma)
    return _per_epoch(
        _times(base_lr, lambda t: _curves.geometric(gamma, t, xp=jnp)),
        steps_per_epoch,
    )


def polynomial_lr(
    base_lr: ArrayLike,
    total_iters: int = 5,
    power: ArrayLike = 1.0,
    *,
    steps_per_epoch: int = 1,
) -> optax.Schedule:
    r"""Decay the learning rate to 0 at `total_iters` along a power of the rest.

    .. math:: \eta_t = \eta_0 \left(1 - \frac{\min(t, \text{total\_iters})}
        {\text{total\_iters}}\right)^{\text{power}}

    Args:
        base_lr: Initial learning rate, a number >= 0.
        total_iters: Epoch from which on the learning rate is 0, an int >= 1, default 5.
        power: Exponent, a number >= 0, default 1.
        steps_per_epoch: Updates per epoch, an int >= 1, default 1.

    Returns:
        The schedule.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Example:
        >>> from adamax_optax import schedules
        >>> schedule = schedules.polynomial_lr(0.01)
        >>> print(*(f"{schedule(count):.3g}" for count in range(7)))
        0.01 0.008 0.006 0.004 0.002 0 0
    """
    _curves.check_polynomial(total_iters, power)
    return _per_epoch(
        _times(
            base_lr,
            lambda t: _curves.polynomial_factor(t, total_iters, power, xp=jnp),
        ),
        steps_per_epoch,
    )


def cosine_annealing_lr(
    base_lr: ArrayLike,
    T_max: int,
    eta_min: ArrayLike = 0.0,
    *,
    steps_per_epoch: int = 1,
) -> optax.Schedule:
    r"""Move the learning rate to `eta_min` in `T_max` epochs along half a cosine.

    .. math:: \eta_t = \eta_{min} + \tfrac12 (\eta_0 - \eta_{min})
        \left(1 + \cos\frac{\pi t}{T_{max}}\right)

    After `T_max` it goes back up, with the period 2 `T_max`;
    `optax.cosine_decay_schedule` stays at the minimum.

    Args:
        base_lr: Initial learning rate, a number >= 0.
        T_max: Epochs until the minimum, an int >= 1.
        eta_min: The minimum, a number >= 0, default 0.
        steps_per_epoch: Updates per epoch, an int >= 1, default 1.

    Returns:
        The schedule.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Example:
        >>> from adamax_optax import schedules
        >>> schedule = schedules.cosine_annealing_lr(0.1, T_max=2)
        >>> print(*(f"{schedule(count):.3g}" for count in range(7)))
        0.1 0.05 0 0.05 0.1 0.05 0
    """
    check_real("base_lr", base_lr, 0.0)
    _curves.check_cosine(T_max, eta_min)
    return _per_epoch(
        lambda t: _curves.between(
            eta_min, base_lr, _curves.half_cosine(t, T_max, xp=jnp)
        ),
        steps_per_epoch,
    )


def cosine_annealing_warm_restarts(
    base_lr: ArrayLike,
    T_0: int,
    T_mult: int = 1,
    eta_min: ArrayLike = 0,
    *,
    steps_per_epoch: int = 1,
) -> optax.Schedule:
    r"""Move the learning rate to `eta_min` along half a cosine, and start again.

    .. math:: \eta_t = \eta_{min} + \tfrac12 (\eta_0 - \eta_{min})
        \left(1 + \cos\frac{\pi T_{cur}}{T_i}\right)

    :math:`T_{cur}` epochs have passed since the last restart, and the cycle lasts
    :math:`T_i = T_0 T_{mult}^i` epochs.

    The epoch is rounded down here as everywhere. For a learning rate that moves within
    an epoch, as after ``scheduler.step(epoch + i / iters)``, count in updates: ``T_0 *
    iters`` in place of ``T_0``, and no `steps_per_epoch`.

    Args:
        base_lr: Initial learning rate, a number >= 0.
        T_0: Epochs until the first restart, an int >= 1.
        T_mult: Growth of a cycle after each restart, an int >= 1, default 1.
        eta_min: The minimum, a number >= 0, default 0.
        steps_per_epoch: Updates per epoch, an int >= 1, default 1.

    Returns:
        The schedule.

    Raises:
        TypeError: If `base_lr` or `steps_per_epoch` has the wrong type.
        ValueError: If an argument is out of range, or another has the wrong type.

    Example:
        >>> from adamax_optax import schedules
        >>> schedule = schedules.cosine_annealing_warm_restarts(0.1, T_0=2 * 3)
        >>> print(*(f"{schedule(count):.6g}" for count in range(6)))
        0.1 0.0933013 0.075 0.05 0.025 0.00669873
    """
    check_real("base_lr", base_lr, 0.0)
    _curves.check_warm_restarts(T_0, T_mult, eta_min)

    def curve(t: Any) -> Any:
        T_cur, T_i = _curves.warm_restart(t, T_0, T_mult, xp=jnp)
        share = _curves.half_cosine(T_cur, T_i, xp=jnp)
        return _curves.between(eta_min, base_lr, share)

    return _per_epoch(curve, steps_per_epoch)


def cyclic_lr(
    base_lr: ArrayLike,
    max_lr: ArrayLike,
    step_size_up: float = 2000,
    step_size_down: float | None = None,
    mode: str = "triangular",
    gamma: ArrayLike = 1.0,
    scale_fn: Callable[[Any], Any] | None = None,
    scale_mode: str = "cycle",
    *,
    steps_per_epoch: int = 1,
) -> optax.Schedule:
    r"""Move the learning rate up and down between `base_lr` and `max_lr`.

    .. math:: \eta_t = \eta_{base} + (\eta_{max} - \eta_{base}) \, h(t) \, s

    h rises from 0 to 1 in `step_size_up` steps and falls to 0 in `step_size_down`, over
    and over. The scale s is 1 (``"triangular"``), :math:`2^{1 - cycle}`
    (``"triangular2"``), :math:`\gamma^t` (``"exp_range"``) or `scale_fn`. Cycles count
    from 1.

    Args:
        base_lr: Lower bound, a number >= 0.
        max_lr: Upper bound, a number >= 0.
        step_size_up: Steps of the rise, a number > 0, default 2000.
        step_size_down: Steps of the fall, a number >= 0, default ``None``: as many.
        mode: ``"triangular"`` (default), ``"triangular2"`` or ``"exp_range"``; ignored
            when `scale_fn` is given.
        gamma: Base of ``"exp_range"``, a number >= 0, default 1.
        scale_fn: The scale as a function, which JAX can trace, of `scale_mode`.
            Default ``None``.
        scale_mode: What `scale_fn` is given: with ``"cycle"`` (default) the number of
            the cycle, with anything else the number of the step.
        steps_per_epoch: Updates per step of the cycle, an int >= 1, default 1.

    Returns:
        The schedule.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or `mode` is unknown and `scale_fn`
            not given.

    Example:
        >>> from adamax_optax import schedules
        >>> schedule = schedules.cyclic_lr(0.01, 0.1)
        >>> print(*(f"{schedule(count):.6g}" for count in range(1, 6)))
        0.010045 0.01009 0.010135 0.01018 0.010225
    """
    _curves.check_cyclic(
        base_lr, max_lr, step_size_up, step_size_down, mode, gamma, scale_fn
    )
    sizes = _curves.cycle_sizes(step_size_up, step_size_down)
    scale = _curves.cycle_scale(mode, gamma, scale_fn, scale_mode, xp=jnp)
    return _per_epoch(
        lambda t: _curves.cyclic(t, base_lr, max_lr, *sizes, scale, xp=jnp),
        steps_per_epoch,
    )


def lambda_lr(
    base_lr: ArrayLike, lr_lambda: Callable[[Any], Any], *, steps_per_epoch: int = 1
) -> optax.Schedule:
    r"""Set the learning rate to the initial one times a function of the epoch.

    .. math:: \eta_t = \eta_0 \, \lambda(t)

    Args:
        base_lr: Learning rate that the function multiplies, a number >= 0.
        lr_lambda: Function from the epoch to a factor. Under `jax.jit` it is given a
            traced integer: ``jnp.where`` in place of ``if``.
        steps_per_epoch: Updates per epoch, an int >= 1, default 1.

    Returns:
        The schedule.

    Raises:
        TypeError: If `lr_lambda` is not callable, or another argument has the wrong
            type.
        ValueError: If an argument is out of range.

    Example:
        >>> from adamax_optax import schedules
        >>> schedule = schedules.lambda_lr(0.01, lambda epoch: 0.9**epoch)
        >>> print(*(f"{schedule(count):.3g}" for count in range(4)))
        0.01 0.009 0.0081 0.00729
    """
    check_callable("lr_lambda", lr_lambda)
    return _per_epoch(
        _times(base_lr, lambda t: jnp.asarray(lr_lambda(t), float)), steps_per_epoch
    )


def multiplicative_lr(
    base_lr: ArrayLike, lr_lambda: Callable[[Any], Any], *, steps_per_epoch: int = 1
) -> optax.Schedule:
    r"""Multiply the learning rate in every epoch by a function of the epoch.

    .. math:: \eta_t = \eta_0 \prod_{i=1}^t \lambda(i)

    The product is taken anew at every count, in a loop of t rounds. For many epochs,
    and for reverse-mode gradients through λ, find the product's closed form and use
    `lambda_lr`.

    Args:
        base_lr: Initial learning rate, a number >= 0.
        lr_lambda: Function from the epoch to a factor, given a traced integer:
            ``jnp.where`` in place of ``if``.
        steps_per_epoch: Updates per epoch, an int >= 1, default 1.

    Returns:
        The schedule.

    Raises:
        TypeError: If `lr_lambda` is not callable, or another argument has the wrong
            type.
        ValueError: If an argument is out of range.

    Example:
        >>> from adamax_optax import schedules
        >>> schedule = schedules.multiplicative_lr(0.01, lambda epoch: 0.95)
        >>> print(*(f"{schedule(count):.6g}" for count in range(4)))
        0.01 0.0095 0.009025 0.00857375
    """
    check_callable("lr_lambda", lr_lambda)

    def product(t: Any) -> Any:
        def multiply(i: Any, so_far: Any) -> Any:
            return so_far * jnp.where(i <= t, jnp.asarray(lr_lambda(i), float), 1.0)

        return jax.lax.fori_loop(
            1, jnp.max(t) + 1, multiply, jnp.ones(jnp.shape(t), float)
        )

    return _per_epoch(_times(base_lr, product), steps_per_epoch)


def sequential_lr(
    schedules: Sequence[optax.Schedule],
    milestones: Sequence[int],
    *,
    steps_per_epoch: int = 1,
) -> optax.Schedule:
    r"""Follow one schedule after the other, going on to the next at each milestone.

    .. math:: \eta_t = \eta^{(i)}_{t - m_i}, \quad m_i \le t < m_{i+1}, \; m_0 = 0

    This is `optax.join_schedules` on epochs. Give `steps_per_epoch` here and not to the
    parts, which are evaluated at the epochs since their start.

    Args:
        schedules: The schedules, from here or from Optax.
        milestones: Epochs at which the second, third, … start: ints >= 0 that do not
            decrease, one less than there are schedules.
        steps_per_epoch: Updates per epoch, an int >= 1, default 1.

    Returns:
        The schedule.

    Raises:
        TypeError: If a schedule is not callable, or another argument has the wrong
            type.
        ValueError: If the milestones do not fit, or `steps_per_epoch` is out of range.

    Example:
        >>> from adamax_optax import schedules
        >>> warmup = schedules.constant_lr(0.1, factor=0.1, total_iters=2)
        >>> decay = schedules.exponential_lr(0.1, gamma=0.9)
        >>> schedule = schedules.sequential_lr([warmup, decay], milestones=[2])
        >>> print(*(f"{schedule(count):.4g}" for count in range(1, 7)))
        0.01 0.1 0.09 0.081 0.0729 0.06561

    Differences: A `multiplicative_lr` starts from its own `base_lr`. The class
    `MultiplicativeLR` has no closed form to start from and goes on from the learning
    rate at the milestone, times λ(0).
    """
    _curves.check_sequence("schedules", schedules, milestones)
    for i, schedule in enumerate(schedules):
        check_callable(f"schedules[{i}]", schedule)
    return _per_epoch(optax.join_schedules(schedules, milestones), steps_per_epoch)
