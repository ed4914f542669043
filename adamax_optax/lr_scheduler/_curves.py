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
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np

from adamax_optax._checks import check_callable, check_int, check_real

Scale = Callable[[Any], Any]


# --- γ to the power of a number of decays ---------------------------------------------


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


def step_decays(t: Any, step_size: int) -> Any:
    """k(t) = ⌊t / step_size⌋."""
    return t // step_size


def check_step(step_size: Any, gamma: Any) -> None:
    check_int("step_size", step_size, 1)
    check_gamma(gamma)


def milestones_passed(t: Any, milestones: Sequence[int], *, xp: ModuleType = np) -> Any:
    """k(t) = #{m in milestones: m ≤ t}."""
    t = xp.asarray(t)
    return xp.sum(xp.asarray(milestones, dtype=t.dtype) <= t[..., None], axis=-1)


def check_milestones(milestones: Any) -> None:
    if not isinstance(milestones, (Sequence, np.ndarray)) or isinstance(
        milestones, str
    ):
        raise TypeError(f"milestones must be a list of ints, got {milestones!r}")
    for i, milestone in enumerate(milestones):
        check_int(f"milestones[{i}]", milestone, 0)


# --- Factors until total_iters --------------------------------------------------------


def constant_factor(
    t: Any, factor: Any, total_iters: int, *, xp: ModuleType = np
) -> Any:
    """f(t) = factor for t < total_iters, else 1."""
    return xp.where(t < total_iters, factor, 1.0)


def check_constant(factor: Any, total_iters: Any) -> None:
    check_real("factor", factor, 0.0, 1.0)
    check_int("total_iters", total_iters, 0)


def _share_left(t: Any, total_iters: int, *, xp: ModuleType) -> Any:
    """Return 1 - min(t, total_iters) / total_iters, and 0 for total_iters = 0.

    Subtracting before dividing gives exactly 0 at the end. A rounding error there would
    be large in a root of it, and NaN if negative.
    """
    return (total_iters - xp.minimum(t, total_iters)) / xp.maximum(total_iters, 1)


def linear_factor(
    t: Any,
    start_factor: Any,
    end_factor: Any,
    total_iters: int,
    *,
    xp: ModuleType = np,
) -> Any:
    """f(t) = start + (end - start) min(t, total_iters) / total_iters."""
    left = _share_left(t, total_iters, xp=xp)
    return end_factor + (start_factor - end_factor) * left


def check_linear(start_factor: Any, end_factor: Any, total_iters: Any) -> None:
    check_real("start_factor", start_factor, 0.0, 1.0, without_low=True)
    check_real("end_factor", end_factor, 0.0, 1.0)
    check_int("total_iters", total_iters, 0)


def polynomial_factor(
    t: Any, total_iters: int, power: Any, *, xp: ModuleType = np
) -> Any:
    """f(t) = (1 - min(t, total_iters) / total_iters)^power."""
    return _share_left(t, total_iters, xp=xp) ** power


def check_polynomial(total_iters: Any, power: Any) -> None:
    check_int("total_iters", total_iters, 1)
    check_real("power", power, 0.0)


# --- Cosines --------------------------------------------------------------------------


def half_cosine(t: Any, period: Any, *, xp: ModuleType = np) -> Any:
    """c(t) = ½ (1 + cos(π t / T)), written as sin²(π (T - t) / 2T).

    The sine has no cancellation near t = T and is exactly 0 there; the remainder keeps
    its argument small for any t.
    """
    return xp.sin((period - t % (2 * period)) / (2 * period) * xp.pi) ** 2


def between(eta_min: Any, base_lr: Any, share: Any) -> Any:
    """η = η_min + (η_max - η_min) c."""
    return eta_min + (base_lr - eta_min) * share


def check_cosine(T_max: Any, eta_min: Any) -> None:
    check_int("T_max", T_max, 1)
    check_real("eta_min", eta_min, 0.0)


def warm_restart(
    t: Any, T_0: int, T_mult: int, *, xp: ModuleType = np
) -> tuple[Any, Any]:
    """Return (T_cur, T_i): the epochs since the last restart, and until the next.

    Cycle n lasts T_0 T_mult^n epochs and starts at epoch T_0 (T_mult^n - 1) /
    (T_mult - 1). Solving for n with a logarithm is off by one at some starts (in
    float64 log(243) / log(3) is below 5), so they are compared one by one.
    """
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


# --- Cycles ---------------------------------------------------------------------------

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
    if float(total_size).is_integer():
        total_size = int(total_size)  # remainders of integers are exact
    else:
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
    base_lr: Any,
    max_lr: Any,
    step_size_up: Any,
    step_size_down: Any,
    mode: Any,
    gamma: Any,
    scale_fn: Any,
) -> None:
    check_real("base_lr", base_lr, 0.0)
    check_real("max_lr", max_lr, 0.0)
    check_real("step_size_up", step_size_up, 0.0, without_low=True)
    if step_size_down is not None:
        check_real("step_size_down", step_size_down, 0.0)
    check_gamma(gamma)
    if scale_fn is not None:
        check_callable("scale_fn", scale_fn)
    elif mode not in MODES:
        raise ValueError(
            f"mode must be one of {', '.join(map(repr, MODES))} when scale_fn is None, "
            f"got {mode!r}"
        )


# --- Sequences ----------------------------------------------------------------------


def check_sequence(name: str, parts: Sequence[Any], milestones: Any) -> None:
    check_milestones(milestones)
    if len(parts) == 0:
        raise ValueError(f"{name} must hold at least one, got {parts!r}")
    if len(milestones) != len(parts) - 1:
        raise ValueError(
            f"milestones must hold one epoch less than {name} has entries "
            f"({len(parts) - 1}), got {milestones!r}"
        )
    if any(a > b for a, b in zip(milestones, milestones[1:], strict=False)):
        raise ValueError(f"milestones must not decrease, got {milestones!r}")
