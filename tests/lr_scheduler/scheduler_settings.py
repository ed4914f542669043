"""Random settings of the schedulers, for hypothesis, and helpers of the tests here."""

import inspect
from typing import Any

import hypothesis
import hypothesis.strategies as st

from adamax_optax import lr_scheduler

STEPS = 100
examples = hypothesis.settings(max_examples=12)


class Groups:
    """All that a scheduler needs of an optimizer."""

    def __init__(self, *lrs: Any) -> None:
        self.param_groups: list[dict[str, Any]] = [{"lr": lr} for lr in lrs]

    def lrs(self) -> list[Any]:
        return [group["lr"] for group in self.param_groups]


def between(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_subnormal=False)


# Held exactly by float32, like the integers.
QUARTERS = st.integers(4, 80).map(lambda quarters: quarters / 4)
GAMMAS = between(0.5, 1.1) | st.just(0.0)
LAMBDAS = st.sampled_from(
    [lambda t: 0.95**t, lambda t: 1 / (1 + t), lambda t: 0.5 + (t % 7) / 10]
)

# The arguments that the class, PyTorch's class and the schedule have in common.
SETTINGS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "StepLR": st.fixed_dictionaries(
        {"step_size": st.integers(1, 40)}, optional={"gamma": GAMMAS}
    ),
    "MultiStepLR": st.fixed_dictionaries(
        {"milestones": st.lists(st.integers(0, 110), max_size=5)},
        optional={"gamma": GAMMAS},
    ),
    "ExponentialLR": st.fixed_dictionaries({"gamma": GAMMAS}),
    "ConstantLR": st.fixed_dictionaries(
        {}, optional={"factor": between(0.01, 1), "total_iters": st.integers(1, 60)}
    ),
    "LinearLR": st.fixed_dictionaries(
        {},
        optional={
            "start_factor": between(0.01, 1),
            "end_factor": between(0, 1),
            "total_iters": st.integers(1, 60),
        },
    ),
    "PolynomialLR": st.fixed_dictionaries(
        {}, optional={"total_iters": st.integers(1, 60), "power": between(0.05, 3)}
    ),
    "CosineAnnealingLR": st.fixed_dictionaries(
        {"T_max": st.integers(1, 60) | QUARTERS}, optional={"eta_min": between(0, 0.01)}
    ),
    "CosineAnnealingWarmRestarts": st.fixed_dictionaries(
        {"T_0": st.integers(1, 20)},
        optional={"T_mult": st.integers(1, 3), "eta_min": between(0, 0.01)},
    ),
    "CyclicLR": st.fixed_dictionaries(
        {
            "base_lr": between(0, 0.05),
            "max_lr": between(0.05, 0.5),
            "step_size_up": st.integers(1, 20) | QUARTERS,
        },
        optional={
            "step_size_down": st.none() | st.integers(0, 20),
            "mode": st.sampled_from(["triangular", "triangular2", "exp_range"]),
            "gamma": between(0.8, 1.05),
            "scale_fn": st.none() | LAMBDAS,
            "scale_mode": st.sampled_from(["cycle", "iterations"]),
        },
    ),
    "LambdaLR": st.fixed_dictionaries({"lr_lambda": LAMBDAS}),
    "MultiplicativeLR": st.fixed_dictionaries({"lr_lambda": LAMBDAS}),
}

PLATEAU = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["min", "max"]),
        "factor": between(0, 0.99),
        "patience": st.integers(0, 5),
        "threshold": between(0, 0.3),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "cooldown": st.integers(0, 4),
        "min_lr": between(0, 0.01),
        "eps": between(0, 1e-3),
    },
)

# A max_lr, or one per group, goes with it.
ONE_CYCLE = st.fixed_dictionaries(
    {"total_steps": st.integers(2, 70)},
    optional={
        # Without those that give a phase no length.
        "pct_start": between(0.02, 0.98),
        "anneal_strategy": st.sampled_from(["cos", "linear"]),
        "div_factor": between(1, 50),
        "final_div_factor": between(1, 1e5),
        "three_phase": st.booleans(),
    },
).filter(lambda s: 0 not in one_cycle_lengths(**s))


def one_cycle_lengths(total_steps, pct_start=0.3, three_phase=False, **_):
    """Return the lengths of the phases; PyTorch divides by them."""
    points = [0.0, pct_start * total_steps - 1]
    points += [2 * pct_start * total_steps - 2] if three_phase else []
    points += [total_steps - 1]
    return [b - a for a, b in zip(points, points[1:], strict=False)]


# The name of the schedule is that of the class in snake case.
SCHEDULES = {
    "StepLR": "step_lr",
    "MultiStepLR": "multi_step_lr",
    "ExponentialLR": "exponential_lr",
    "ConstantLR": "constant_lr",
    "LinearLR": "linear_lr",
    "PolynomialLR": "polynomial_lr",
    "CosineAnnealingLR": "cosine_annealing_lr",
    "CosineAnnealingWarmRestarts": "cosine_annealing_warm_restarts",
    "CyclicLR": "cyclic_lr",
    "LambdaLR": "lambda_lr",
    "MultiplicativeLR": "multiplicative_lr",
}

NAMES = sorted(SETTINGS)
LRS = st.lists(between(1e-4, 1), min_size=1, max_size=3)


class Rate:
    """A callable object: its attributes belong to the state."""

    def __init__(self, rate):
        self.rate = rate

    def __call__(self, t):
        return self.rate**t


def make(name, optimizer, settings):
    return getattr(lr_scheduler, name)(optimizer, **settings)


def run(scheduler, steps):
    values = [scheduler.get_last_lr()[0]]
    for _ in range(steps):
        scheduler.step()
        values.append(scheduler.get_last_lr()[0])
    return values


def arguments(function):
    return [
        (parameter.name, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name != "self"
    ]
