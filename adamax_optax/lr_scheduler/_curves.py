"""The learning-rate curves in closed form, each defined once.

`adamax_optax.lr_scheduler` evaluates them on Python numbers in float64
(``xp=numpy``), `adamax_optax.schedules` on traced counts (``xp=jax.numpy``). ``t`` is
the epoch: the number of `step()` calls so far.

Floors, comparisons and remainders, which choose between two values, are computed on
integers. Compiled float division is not safe there: XLA turns ``t / 41`` into
``t * (1 / 41)``, which is just below 1 for ``t = 41``.

Each curve's ``check_`` function, beside it, raises if an argument is out of range.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np

from adamax_optax._checks import check_callable, check_int, check_real

Scale = Callable[[Any], Any]


def check_count(name: str, value: Any, low: int) -> None:
    """Raise unless `value` is an integer of at least `low`; 3.0 passes, as in PyTorch.

    Training scripts compute their numbers of epochs and steps, often by a division.
    """
    is_whole = isinstance(value, float) and value.is_integer()
    check_int(name, int(value) if is_whole else value, low)


def whole(size: Any) -> int | float:
    """Return a size as a Python int if it is whole: its remainders are exact.

    In a narrow NumPy integer, ``2 * period`` would overflow.
    """
    size = float(size)
    return int(size) if size.is_integer() else size


# γ to the power of a number of decays


def geometric(gamma: Any, k: Any, *, xp: ModuleType = np) -> Any:
    """Return γ^k, as accurate in float32 as in float64."""
    k = xp.asarray(k, dtype=float)
    if isinstance(gamma, (jax.Array, np.ndarray)):
        return gamma**k
    # float32 rounds γ to g = γ (1 - δ), so g^k is off by k δ: 0.2 % for γ = 0.9999 and
    # k = 100 000. Hence γ^k = g^k · exp(k log(γ / g)). In float64 γ / g = 1.
    g = float(np.asarray(gamma, dtype=k.dtype))
    if g == 0:
        return g**k
    return g**k * xp.exp(k * math.log(gamma / g))


def check_gamma(gamma: Any) -> None:
    check_real("gamma", gamma, 0.0)


def check_step(step_size: Any, gamma: Any) -> None:
    check_count("step_size", step_size, 1)
    check_gamma(gamma)


def milestones_passed(t: Any, milestones: Sequence[int], *, xp: ModuleType = np) -> Any:
    """k(t) = #{m in milestones: m ≤ t}."""
    t = xp.asarray(t)
    return xp.sum(xp.asarray(milestones, dtype=t.dtype) <= t[..., None], axis=-1)


def check_milestones(milestones: Any) -> None:
    if not isinstance(milestones, (Sequence, np.ndarray)) or isinstance(
        milestones, str
    ):
        raise TypeError(f"milestones must be a list of ints, got {milestones!r}.")
    for i, milestone in enumerate(milestones):
        check_count(f"milestones[{i}]", milestone, 0)


# Factors until total_iters


def constant_factor(
    t: Any, factor: Any, total_iters: int, *, xp: ModuleType = np
) -> Any:
    """f(t) = factor for t < total_iters, else 1."""
    return xp.where(t < total_iters, factor, 1.0)


def check_constant(factor: Any, total_iters: Any) -> None:
    check_real("factor", factor, 0.0, 1.0)
    check_count("total_iters", total_iters, 0)


def _share_left(t, total_iters: int, *, xp: ModuleType):
    """Return 1 - min(t, total_iters) / total_iters, and 0 for total_iters = 0.

    Subtracting before dividing gives exactly 0 at the end. A rounding error there would
    be large in a root of it, and NaN if negative.
    """
    return (total_iters - xp.minimum(t, total_iters)) / xp.maximum(total_iters, 1)


def linear_factor(
    t: Any, start_factor: Any, end_factor: Any, total_iters: int, *, xp: ModuleType = np
) -> Any:
    """f(t) = start + (end - start) min(t, total_iters) / total_iters."""
    left = _share_left(t, total_iters, xp=xp)
    return end_factor + (start_factor - end_factor) * left


def check_linear(start_factor: Any, end_factor: Any, total_iters: Any) -> None:
    check_real("start_factor", start_factor, 0.0, 1.0, without_low=True)
    check_real("end_factor", end_factor, 0.0, 1.0)
    check_count("total_iters", total_iters, 0)


def polynomial_factor(
    t: Any, total_iters: int, power: Any, *, xp: ModuleType = np
) -> Any:
    """f(t) = (1 - min(t, total_iters) / total_iters)^power."""
    return _share_left(t, total_iters, xp=xp) ** power


def check_polynomial(total_iters: Any, power: Any) -> None:
    check_count("total_iters", total_iters, 1)
    check_real("power", power, 0.0)


# Cosines


def half_cosine(t: Any, period: Any, *, xp: ModuleType = np) -> Any:
    """c(t) = ½ (1 + cos(π t / T)), written as sin²(π (T - t) / 2T).

    The sine has no cancellation near t = T and is exactly 0 there; the remainder keeps
    its argument small for any t.
    """
    if isinstance(period, float):
        t = xp.asarray(t, dtype=float)
    return xp.sin((period - t % (2 * period)) / (2 * period) * xp.pi) ** 2


def check_cosine(T_max: Any, eta_min: Any) -> None:
    check_real("T_max", T_max, 0.0, without_low=True)
    check_real("eta_min", eta_min, 0.0)


def warm_restart(
    t: Any, T_0: int, T_mult: int, *, xp: ModuleType = np
) -> tuple[Any, Any]:
    """Return (T_cur, T_i): the epochs since the last restart, and until the next.

    Cycle n lasts T_0 T_mult^n epochs and starts at epoch T_0 (T_mult^n - 1) /
    (T_mult - 1). Solving for n with a logarithm is off by one at some starts (in
    float64 log(243) / log(3) is below 5), so they are compared one by one.
    """
    T_0, T_mult = int(T_0), int(T_mult)  # NumPy's and JAX's integers overflow below
    if T_mult == 1:
        return t % T_0, T_0
    starts, lengths = [0], [T_0]
    while starts[-1] + lengths[-1] <= np.iinfo(np.int32).max:
        starts.append(starts[-1] + lengths[-1])
        lengths.append(lengths[-1] * T_mult)
    n = milestones_passed(t, starts, xp=xp) - 1
    T_cur = t - xp.asarray(starts, dtype=xp.asarray(t).dtype)[n]
    return xp.asarray(T_cur, dtype=float), xp.asarray(lengths, dtype=float)[n]


def check_warm_restarts(T_0: Any, T_mult: Any, eta_min: Any) -> None:
    # MindSpore documents ValueError here for a wrong type too.
    check_int("T_0", T_0, 1, wrong_type=ValueError)
    check_int("T_mult", T_mult, 1, wrong_type=ValueError)
    check_real("eta_min", eta_min, 0.0, wrong_type=ValueError)


# Cycles

MODES = ("triangular", "triangular2", "exp_range")


def cycle_sizes(step_size_up: Any, step_size_down: Any) -> tuple[float, float]:
    """Return the length of a cycle and the fraction of it that rises."""
    up = float(step_size_up)
    total_size = up + (up if step_size_down is None else float(step_size_down))
    return total_size, up / total_size


def cycle_scale(
    mode: str,
    gamma: Any,
    scale_fn: Scale | None,
    scale_mode: str,
    *,
    xp: ModuleType = np,
) -> tuple[Scale, str]:
    """Return s and the name of its argument: 'cycle' or 'iterations'."""
    if scale_fn is not None:
        return scale_fn, scale_mode
    if mode == "triangular":
        return lambda cycle: 1.0, "cycle"
    if mode == "triangular2":
        return lambda cycle: geometric(0.5, cycle - 1, xp=xp), "cycle"
    return lambda t: geometric(gamma, t, xp=xp), "iterations"


def cyclic(
    t: Any,
    base_lr: Any,
    max_lr: Any,
    total_size: float,
    step_ratio: float,
    scale: tuple[Scale, str],
    *,
    xp: ModuleType = np,
) -> Any:
    """η = base_lr + (max_lr - base_lr) h(x) s, with x in [0, 1) the phase of the cycle.

    h rises from 0 to 1 until x = step_ratio, then falls to 0.
    """
    scale_fn, scale_mode = scale
    total_size = whole(total_size)
    if isinstance(total_size, float):
        t = xp.asarray(t, dtype=float)
    cycle = 1 + t // total_size
    x = t % total_size / total_size
    height = x / step_ratio
    if step_ratio < 1:
        height = xp.minimum(height, (1 - x) / (1 - step_ratio))
    return base_lr + (max_lr - base_lr) * height * scale_fn(
        cycle if scale_mode == "cycle" else t
    )


def check_cyclic(
    step_size_up: Any, step_size_down: Any, mode: Any, gamma: Any, scale_fn: Any
) -> None:
    check_real("step_size_up", step_size_up, 0.0, without_low=True)
    if step_size_down is not None:
        check_real("step_size_down", step_size_down, 0.0)
    check_gamma(gamma)
    if scale_fn is not None:
        check_callable("scale_fn", scale_fn)
    elif mode not in MODES:
        raise ValueError(
            f"mode must be one of {', '.join(map(repr, MODES))} when scale_fn is None, "
            f"got {mode!r}."
        )


# One cycle


def one_cycle(
    t: Any,
    phases: Sequence[Mapping[str, Any]],
    values: Mapping[str, Any],
    what: str,
    strategy: str,
    *,
    xp: ModuleType = np,
) -> Any:
    """Go from the start to the end of the phase that t is in.

    A phase names its first and last one of `values`; `what` is "lr" or "momentum". With
    x the share of the phase that is over, their weights are 1 - x and x, or their half
    cosines ½ (1 + cos(π x)) = sin²(π (1 - x) / 2) and sin²(π x / 2): nothing cancels.
    """
    t = xp.asarray(t, dtype=float)
    starts = [0.0, *(phase["end_step"] for phase in phases)]
    value: Any = None
    for first, phase in reversed(list(zip(starts, phases, strict=False))):
        start, end = values[phase[f"start_{what}"]], values[phase[f"end_{what}"]]
        last = phase["end_step"]
        length = last - first
        x = (t - first) / length if length else xp.ones_like(t)
        if strategy == "cos":
            now = (
                start * xp.sin((1 - x) * (xp.pi / 2)) ** 2
                + end * xp.sin(x * (xp.pi / 2)) ** 2
            )
        else:
            x = xp.minimum(x, 1.0)
            now = start * (1 - x) + end * x
        value = now if value is None else xp.where(t <= last, now, value)
    return value


def one_cycle_steps(total_steps: Any, epochs: Any, steps_per_epoch: Any) -> int:
    """Return the number of steps, from either way to give it."""
    if total_steps is not None:
        check_int("total_steps", total_steps, 1, wrong_type=ValueError)
        return int(total_steps)
    if epochs is None or steps_per_epoch is None:
        raise ValueError(
            "total_steps, or epochs and steps_per_epoch, must be given; got "
            f"epochs={epochs!r} and steps_per_epoch={steps_per_epoch!r}."
        )
    check_int("epochs", epochs, 1, wrong_type=ValueError)
    check_int("steps_per_epoch", steps_per_epoch, 1, wrong_type=ValueError)
    return int(epochs) * int(steps_per_epoch)


def one_cycle_phases(
    total_steps: int, pct_start: float, three_phase: bool
) -> list[dict[str, Any]]:
    """Return the phases in PyTorch's form: last steps, and names of values."""
    # The step, and the names of the learning rate and of the momentum there.
    peak = (float(pct_start * total_steps) - 1, "max_lr", "base_momentum")
    back = (float(2 * pct_start * total_steps) - 2, "initial_lr", "max_momentum")
    points = [(0.0, "initial_lr", "max_momentum"), peak]
    points += [back] if three_phase else []
    points += [(total_steps - 1, "min_lr", "max_momentum")]
    return [
        {
            "end_step": step,
            "start_lr": start_lr,
            "end_lr": end_lr,
            "start_momentum": start_momentum,
            "end_momentum": end_momentum,
        }
        for (_, start_lr, start_momentum), (step, end_lr, end_momentum) in zip(
            points, points[1:], strict=False
        )
    ]


def check_one_cycle(
    pct_start: Any, strategy: Any, div_factor: Any, final_div_factor: Any
) -> None:
    check_real("pct_start", pct_start, 0.0, 1.0, wrong_type=ValueError)
    if strategy not in ("cos", "linear"):
        raise ValueError(
            f"anneal_strategy must be 'cos' or 'linear', got {strategy!r}."
        )
    check_real("div_factor", div_factor, 0.0, without_low=True)
    check_real("final_div_factor", final_div_factor, 0.0, without_low=True)


# Sequences


def check_sequence(name: str, parts: Sequence[Any], milestones: Any) -> None:
    check_milestones(milestones)
    if len(parts) == 0:
        raise ValueError(f"{name} must hold at least one, got {parts!r}.")
    if len(milestones) != len(parts) - 1:
        raise ValueError(
            f"milestones must have length {len(parts) - 1}, one less than {name}, "
            f"got {milestones!r}."
        )
    if any(a > b for a, b in zip(milestones, milestones[1:], strict=False)):
        raise ValueError(f"milestones must not decrease, got {milestones!r}.")
