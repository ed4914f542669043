"""The curves of `adamax_optax.lr_scheduler` as Optax schedules.

Every function here returns a schedule: a function from the number of finished updates
(an int, or an integer array of any shape) to the learning rate (an array of that shape,
in JAX's default float dtype). Optax calls it inside `jax.jit`:
``adamax(learning_rate=step_lr(0.1, 30))``. Its value at count c is what the class of
the same name has set after c calls of `step()`, alone on an optimizer whose learning
rate is `base_lr`. The classes are stepped once per epoch, but Optax counts updates:
`per_epoch` converts between the two.

Arguments, defaults and ranges are those of the classes. `base_lr` and all other numbers
except those that count epochs may also be arrays, traced or not (`jax.vmap` over
`base_lr`); traced values are not checked. For `ReduceLROnPlateau`, which depends on a
metric and not only on the count, see `optax.contrib.reduce_on_plateau`.

Where Optax has the same curve, the values agree (`optax.linear_schedule`,
`optax.piecewise_constant_schedule`, `optax.exponential_decay` without ``staircase``).
Its staircase and polynomials are not used,
because they divide the count in floating point. Compiled with Optax 0.2.8,
``exponential_decay(1.0, 41, 0.5, staircase=True)`` is one step late at count 41, and
``polynomial_schedule(1.0, 0.0, 0.5, 3)`` is NaN at count 3.
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
    "one_cycle_lr",
    "per_epoch",
    "polynomial_lr",
    "sequential_lr",
    "step_lr",
]


def _schedule(curve) -> optax.Schedule:
    """Return count -> curve(max(⌊count⌋, 0))."""

    def schedule(count):
        # `optax.join_schedules` evaluates every part at every count, even below 0,
        # where gamma**t may overflow and make the gradient of the whole NaN.
        return curve(jnp.maximum(count // 1, 0))

    return schedule


def _scaled(base_lr, factor) -> optax.Schedule:
    """Return count -> base_lr · factor(count)."""
    check_real("base_lr", base_lr, 0.0)
    return _schedule(lambda t: base_lr * factor(t))


def _annealed(base_lr, eta_min, share) -> optax.Schedule:
    """Return count -> eta_min + (base_lr - eta_min) · share(count)."""
    check_real("base_lr", base_lr, 0.0)
    return _schedule(lambda t: eta_min + (base_lr - eta_min) * share(t))


def per_epoch(schedule: optax.Schedule, steps_per_epoch: int) -> optax.Schedule:
    """Evaluate a schedule at the epoch instead of the update count.

    After `count` updates::

        lr(count) = schedule(floor(count / steps_per_epoch))

    Every number in `schedule` that counts (step sizes, milestones, periods) then counts
    epochs, as in a class that is stepped once after each. Wrap a whole `sequential_lr`
    or `optax.join_schedules`, not its parts: their milestones count epochs too.

    Args:
      schedule: Any schedule, from this module or from Optax. It is called with an
        integer.
      steps_per_epoch: Updates per epoch, an int >= 1.

    Returns:
      The schedule, for integer counts of any shape. The division is exact.

    Raises:
      TypeError: If `schedule` is not callable or `steps_per_epoch` is not an int; when
        called, if the count is not an integer.
      ValueError: If `steps_per_epoch` is below 1.

    Example:
      >>> from adamax_optax import schedules
      >>> schedule = schedules.per_epoch(schedules.exponential_lr(0.01, gamma=0.5), 3)
      >>> print(*(f"{schedule(count):.3g}" for count in range(7)))
      0.01 0.01 0.01 0.005 0.005 0.005 0.0025
    """
    if not callable(schedule):
        raise TypeError(
            "schedule must be a function of the count, such as step_lr(0.1, 30) or an "
            f"Optax schedule, got {schedule!r}."
        )
    check_int("steps_per_epoch", steps_per_epoch, 1)
    steps_per_epoch = int(steps_per_epoch)

    def epoch_schedule(count):
        dtype = jnp.result_type(count)
        if not jnp.issubdtype(dtype, jnp.integer):
            raise TypeError(
                "count must be an integer, the number of finished updates, got "
                f"{count!r} of dtype {dtype}: cast it to int32."
            )
        if jnp.iinfo(dtype).bits < 32:  # too few for the divisor
            count = jnp.asarray(count, jnp.int32)
        return schedule(count // min(steps_per_epoch, 2**31 - 1))

    return epoch_schedule


def step_lr(
    base_lr: ArrayLike, step_size: int, gamma: ArrayLike = 0.1
) -> optax.Schedule:
    """Multiply the learning rate by `gamma` every `step_size` epochs.

    At epoch t::

        lr(t) = base_lr * gamma^floor(t / step_size)

    Args:
      base_lr: Initial learning rate, a number >= 0.
      step_size: Epochs from one decay to the next, an int >= 1.
      gamma: Factor of each decay, a number >= 0, default 0.1.

    Raises:
      TypeError, ValueError: If an argument has the wrong type or is out of range.

    Example:
      >>> from adamax_optax import schedules
      >>> schedule = schedules.step_lr(0.05, step_size=2)
      >>> print(*(f"{schedule(count):.3g}" for count in range(6)))
      0.05 0.05 0.005 0.005 0.0005 0.0005
    """
    _curves.check_step(step_size, gamma)
    step_size = int(step_size)
    return _scaled(base_lr, lambda t: _curves.geometric(gamma, t // step_size, xp=jnp))


def multi_step_lr(
    base_lr: ArrayLike, milestones: Sequence[int], gamma: ArrayLike = 0.1
) -> optax.Schedule:
    """Multiply the learning rate by `gamma` at each milestone.

    At epoch t::

        lr(t) = base_lr * gamma^(number of milestones <= t)

    Args:
      base_lr: Initial learning rate, a number >= 0.
      milestones: Epochs, ints >= 0 in any order. An epoch listed twice counts twice.
      gamma: Factor of each decay, a number >= 0, default 0.1.

    Raises:
      TypeError, ValueError: If an argument has the wrong type or is out of range.

    Example:
      >>> from adamax_optax import schedules
      >>> schedule = schedules.multi_step_lr(0.05, [2, 4])
      >>> print(*(f"{schedule(count):.3g}" for count in range(6)))
      0.05 0.05 0.005 0.005 0.0005 0.0005
    """
    _curves.check_milestones(milestones)
    _curves.check_gamma(gamma)
    milestones = [int(milestone) for milestone in milestones]

    def factor(t):
        passed = _curves.milestones_passed(t, milestones, xp=jnp)
        return _curves.geometric(gamma, passed, xp=jnp)

    return _scaled(base_lr, factor)


def constant_lr(
    base_lr: ArrayLike, factor: ArrayLike = 1.0 / 3, total_iters: int = 5
) -> optax.Schedule:
    """Multiply the learning rate by `factor` until epoch `total_iters`.

    At epoch t::

        lr(t) = base_lr * factor    if t < total_iters
        lr(t) = base_lr             otherwise

    Args:
      base_lr: Learning rate from epoch `total_iters` on, a number >= 0.
      factor: A number in [0, 1], default 1/3.
      total_iters: An int >= 0, default 5.

    Raises:
      TypeError, ValueError: If an argument has the wrong type or is out of range.

    Example:
      >>> from adamax_optax import schedules
      >>> schedule = schedules.constant_lr(0.05, factor=0.5, total_iters=4)
      >>> print(*(f"{schedule(count):.3g}" for count in range(6)))
      0.025 0.025 0.025 0.025 0.05 0.05
    """
    _curves.check_constant(factor, total_iters)
    total_iters = int(total_iters)
    return _scaled(
        base_lr, lambda t: _curves.constant_factor(t, factor, total_iters, xp=jnp)
    )


def linear_lr(
    base_lr: ArrayLike,
    start_factor: ArrayLike = 1.0 / 3,
    end_factor: ArrayLike = 1.0,
    total_iters: int = 5,
) -> optax.Schedule:
    """Multiply the learning rate by a factor that changes linearly.

    At epoch t::

        share = min(t, total_iters) / total_iters
        lr(t) = base_lr * (start_factor + (end_factor - start_factor) * share)

    Args:
      base_lr: Learning rate that the factor multiplies, a number >= 0.
      start_factor: Factor at epoch 0, a number in (0, 1], default 1/3.
      end_factor: Factor from epoch `total_iters` on, a number in [0, 1], default 1.
      total_iters: Epochs from `start_factor` to `end_factor`, an int >= 0, default 5.

    Raises:
      TypeError, ValueError: If an argument has the wrong type or is out of range.

    Example:
      >>> from adamax_optax import schedules
      >>> schedule = schedules.linear_lr(0.05, start_factor=0.5, total_iters=4)
      >>> print(*(f"{schedule(count):.6g}" for count in range(6)))
      0.025 0.03125 0.0375 0.04375 0.05 0.05
    """
    _curves.check_linear(start_factor, end_factor, total_iters)
    total_iters = int(total_iters)

    def factor(t):
        return _curves.linear_factor(t, start_factor, end_factor, total_iters, xp=jnp)

    return _scaled(base_lr, factor)


def exponential_lr(base_lr: ArrayLike, gamma: ArrayLike) -> optax.Schedule:
    """Multiply the learning rate by `gamma` every epoch.

    At epoch t::

        lr(t) = base_lr * gamma^t

    Args:
      base_lr: Initial learning rate, a number >= 0.
      gamma: Factor of each decay, a number >= 0.

    Raises:
      TypeError, ValueError: If an argument has the wrong type or is out of range.

    Example:
      >>> from adamax_optax import schedules
      >>> schedule = schedules.exponential_lr(0.01, gamma=0.5)
      >>> print(*(f"{schedule(count):.3g}" for count in range(4)))
      0.01 0.005 0.0025 0.00125
    """
    _curves.check_gamma(gamma)
    return _scaled(base_lr, lambda t: _curves.geometric(gamma, t, xp=jnp))


def polynomial_lr(
    base_lr: ArrayLike, total_iters: int = 5, power: ArrayLike = 1.0
) -> optax.Schedule:
    """Decay the learning rate polynomially to 0 at epoch `total_iters`.

    At epoch t::

        lr(t) = base_lr * (1 - min(t, total_iters) / total_iters)^power

    Args:
      base_lr: Initial learning rate, a number >= 0.
      total_iters: Epoch from which the learning rate is 0, an int >= 1, default 5.
      power: Exponent, a number >= 0, default 1.

    Raises:
      TypeError, ValueError: If an argument has the wrong type or is out of range.

    Example:
      >>> from adamax_optax import schedules
      >>> schedule = schedules.polynomial_lr(0.01)
      >>> print(*(f"{schedule(count):.3g}" for count in range(7)))
      0.01 0.008 0.006 0.004 0.002 0 0
    """
    _curves.check_polynomial(total_iters, power)
    total_iters = int(total_iters)
    return _scaled(
        base_lr, lambda t: _curves.polynomial_factor(t, total_iters, power, xp=jnp)
    )


def cosine_annealing_lr(
    base_lr: ArrayLike, T_max: float, eta_min: ArrayLike = 0.0
) -> optax.Schedule:
    """Move the learning rate to `eta_min` in `T_max` epochs along half a cosine.

    At epoch t::

        lr(t) = eta_min + (base_lr - eta_min) * (1 + cos(pi t / T_max)) / 2

    After epoch `T_max` it rises again, with period 2 `T_max`;
    `optax.cosine_decay_schedule` stays at the minimum.

    Args:
      base_lr: Initial learning rate, a number >= 0.
      T_max: Epochs until the minimum, a number > 0.
      eta_min: The minimum, a number >= 0, default 0.

    Raises:
      TypeError, ValueError: If an argument has the wrong type or is out of range.

    Example:
      >>> from adamax_optax import schedules
      >>> schedule = schedules.cosine_annealing_lr(0.1, T_max=2)
      >>> print(*(f"{schedule(count):.3g}" for count in range(7)))
      0.1 0.05 0 0.05 0.1 0.05 0
    """
    _curves.check_cosine(T_max, eta_min)
    T_max = _curves.whole(T_max)
    return _annealed(base_lr, eta_min, lambda t: _curves.half_cosine(t, T_max, xp=jnp))


def cosine_annealing_warm_restarts(
    base_lr: ArrayLike, T_0: int, T_mult: int = 1, eta_min: ArrayLike = 0
) -> optax.Schedule:
    """Move the learning rate to `eta_min` along half a cosine, then restart.

    At epoch t::

        lr(t) = eta_min + (base_lr - eta_min) * (1 + cos(pi T_cur / T_i)) / 2

    T_cur epochs have passed since the last restart, and the cycle lasts
    T_i = T_0 * T_mult^i epochs.

    For a learning rate that changes within an epoch, count in updates: pass
    ``T_0 * iters`` as `T_0`, and do not use `per_epoch`.

    Args:
      base_lr: Initial learning rate, a number >= 0.
      T_0: Epochs until the first restart, an int >= 1.
      T_mult: Growth of the cycle at each restart, an int >= 1, default 1.
      eta_min: The minimum, a number >= 0, default 0.

    Raises:
      TypeError: If `base_lr` has the wrong type.
      ValueError: If an argument is out of range, or another has the wrong type.

    Example:
      >>> from adamax_optax import schedules
      >>> schedule = schedules.cosine_annealing_warm_restarts(0.1, T_0=2 * 3)
      >>> print(*(f"{schedule(count):.6g}" for count in range(6)))
      0.1 0.0933013 0.075 0.05 0.025 0.00669873
    """
    _curves.check_warm_restarts(T_0, T_mult, eta_min)

    def share(t):
        T_cur, T_i = _curves.warm_restart(t, T_0, T_mult, xp=jnp)
        return _curves.half_cosine(T_cur, T_i, xp=jnp)

    return _annealed(base_lr, eta_min, share)


def cyclic_lr(
    base_lr: ArrayLike,
    max_lr: ArrayLike,
    step_size_up: float = 2000,
    step_size_down: float | None = None,
    mode: str = "triangular",
    gamma: ArrayLike = 1.0,
    scale_fn: Callable[[Any], Any] | None = None,
    scale_mode: str = "cycle",
) -> optax.Schedule:
    """Move the learning rate up and down between `base_lr` and `max_lr`.

    At step t::

        lr(t) = base_lr + (max_lr - base_lr) * h * s

    with the height h and the scale s of `adamax_optax.lr_scheduler.CyclicLR`.

    Args:
      base_lr: Lower bound, a number >= 0.
      max_lr: Upper bound, a number >= 0.
      step_size_up: Steps of the rise, a number > 0, default 2000.
      step_size_down: Steps of the fall, a number >= 0, default `step_size_up`.
      mode: ``"triangular"`` (default), ``"triangular2"`` or ``"exp_range"``; ignored if
        `scale_fn` is given.
      gamma: Base of ``"exp_range"``, a number >= 0, default 1.
      scale_fn: A function for s that JAX can trace, or ``None`` (default).
      scale_mode: Argument of `scale_fn`: the number of the cycle for ``"cycle"``
        (default), the number of the step for anything else.

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
    check_real("base_lr", base_lr, 0.0)
    check_real("max_lr", max_lr, 0.0)
    _curves.check_cyclic(step_size_up, step_size_down, mode, gamma, scale_fn)
    sizes = _curves.cycle_sizes(step_size_up, step_size_down)
    scale = _curves.cycle_scale(mode, gamma, scale_fn, scale_mode, xp=jnp)
    return _schedule(
        lambda t: _curves.cyclic(t, base_lr, max_lr, *sizes, scale, xp=jnp)
    )


def one_cycle_lr(
    max_lr: ArrayLike,
    total_steps: int | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    div_factor: ArrayLike = 25.0,
    final_div_factor: ArrayLike = 1e4,
    three_phase: bool = False,
) -> optax.Schedule:
    """Raise the learning rate to `max_lr`, then lower it far below where it started.

    Its phases are those of `adamax_optax.lr_scheduler.OneCycleLR`. It counts steps, so
    do not wrap it with `per_epoch`. After the last step it stays at the minimum; the
    class raises. The phases of `optax.cosine_onecycle_schedule` and
    `optax.linear_onecycle_schedule` end a step later, and the last ends elsewhere.

    Args:
      max_lr: Highest learning rate, a number >= 0.
      total_steps: Number of steps, an int >= 1; default `epochs` * `steps_per_epoch`.
      epochs: Number of epochs, an int >= 1; ignored if `total_steps` is given.
      steps_per_epoch: Steps per epoch, an int >= 1, ignored likewise.
      pct_start: Share of the steps that raises the learning rate, a number in [0, 1],
        default 0.3.
      anneal_strategy: ``"cos"`` (default) joins the values by half cosines,
        ``"linear"`` by lines.
      div_factor: `max_lr` over the first learning rate, a number > 0, default 25.
      final_div_factor: First learning rate over the last, a number > 0, default 1e4.
      three_phase: Whether to return to the first learning rate before the last.

    Raises:
      TypeError: If a number has the wrong type.
      ValueError: If an argument is out of range, or the number of steps is not given.

    Example:
      >>> from adamax_optax import schedules
      >>> schedule = schedules.one_cycle_lr(0.1, total_steps=10)
      >>> print(*(f"{schedule(count):.4g}" for count in range(5)))
      0.004 0.052 0.1 0.09505 0.08117
    """
    check_real("max_lr", max_lr, 0.0)
    _curves.check_one_cycle(pct_start, anneal_strategy, div_factor, final_div_factor)
    last = _curves.one_cycle_steps(total_steps, epochs, steps_per_epoch) - 1
    low = max_lr / div_factor
    lrs = {"initial_lr": low, "max_lr": max_lr, "min_lr": low / final_div_factor}
    phases = _curves.one_cycle_phases(last + 1, pct_start, three_phase)

    def curve(t):
        t = jnp.minimum(t, last)
        return _curves.one_cycle(t, phases, lrs, "lr", anneal_strategy, xp=jnp)

    return _schedule(curve)


def lambda_lr(base_lr: ArrayLike, lr_lambda: Callable[[Any], Any]) -> optax.Schedule:
    """Multiply the initial learning rate by a function of the epoch.

    At epoch t::

        lr(t) = base_lr * lr_lambda(t)

    Args:
      base_lr: Initial learning rate, a number >= 0.
      lr_lambda: Function from the epoch to a factor. Under `jax.jit` the epoch is a
        traced integer: use ``jnp.where`` instead of ``if``.

    Raises:
      TypeError, ValueError: If an argument has the wrong type or is out of range.

    Example:
      >>> from adamax_optax import schedules
      >>> schedule = schedules.lambda_lr(0.01, lambda epoch: 0.9**epoch)
      >>> print(*(f"{schedule(count):.3g}" for count in range(4)))
      0.01 0.009 0.0081 0.00729
    """
    check_callable("lr_lambda", lr_lambda)
    return _scaled(base_lr, lambda t: jnp.asarray(lr_lambda(t), float))


def multiplicative_lr(
    base_lr: ArrayLike, lr_lambda: Callable[[Any], Any]
) -> optax.Schedule:
    """Multiply the learning rate every epoch by a function of the epoch.

    At epoch t::

        lr(t) = base_lr * lr_lambda(1) * ... * lr_lambda(t)

    Each call computes the product in a loop of t iterations. For many epochs, or for
    reverse-mode gradients through `lr_lambda`, use `lambda_lr` with a closed form.

    Args:
      base_lr: Initial learning rate, a number >= 0.
      lr_lambda: Function from the epoch to a factor. The epoch is always a traced
        integer: use ``jnp.where`` instead of ``if``.

    Raises:
      TypeError, ValueError: If an argument has the wrong type or is out of range.

    Example:
      >>> from adamax_optax import schedules
      >>> schedule = schedules.multiplicative_lr(0.01, lambda epoch: 0.95)
      >>> print(*(f"{schedule(count):.6g}" for count in range(4)))
      0.01 0.0095 0.009025 0.00857375
    """
    check_callable("lr_lambda", lr_lambda)

    def product(t):
        def multiply(i, so_far):
            return so_far * jnp.where(i <= t, jnp.asarray(lr_lambda(i), float), 1.0)

        start = jnp.ones(jnp.shape(t), float)
        return jax.lax.fori_loop(1, jnp.max(t) + 1, multiply, start)

    return _scaled(base_lr, product)


def sequential_lr(
    schedules: Sequence[optax.Schedule], milestones: Sequence[int]
) -> optax.Schedule:
    """Follow one schedule after another, changing to the next at each milestone.

    At epoch t::

        lr(t) = lr_i(t - m_i)    for m_i <= t < m_(i+1), with m_0 = 0

    This is `optax.join_schedules`. For updates instead of epochs, wrap the whole with
    `per_epoch`, not the parts.

    Args:
      schedules: The schedules, from this module or from Optax.
      milestones: Epochs at which the second, third, … start: ints >= 0 that do not
        decrease, one fewer than there are schedules.

    Raises:
      TypeError: If a schedule is not callable, or a milestone is not an int.
      ValueError: If the milestones do not fit.

    Example:
      >>> from adamax_optax import schedules
      >>> warmup = schedules.constant_lr(0.1, factor=0.1, total_iters=2)
      >>> decay = schedules.exponential_lr(0.1, gamma=0.9)
      >>> schedule = schedules.sequential_lr([warmup, decay], milestones=[2])
      >>> print(*(f"{schedule(count):.4g}" for count in range(1, 7)))
      0.01 0.1 0.09 0.081 0.0729 0.06561

    Differences: A `multiplicative_lr` starts from its own `base_lr`. The class
    `MultiplicativeLR` has no closed form to start from: it continues from the learning
    rate at the milestone, times ``lr_lambda(0)``.
    """
    _curves.check_sequence("schedules", schedules, milestones)
    for i, schedule in enumerate(schedules):
        check_callable(f"schedules[{i}]", schedule)
    milestones = [int(milestone) for milestone in milestones]
    return _schedule(optax.join_schedules(schedules, milestones))
