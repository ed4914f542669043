"""Record trajectories of MindSpore's own Adamax, to replay them without MindSpore.

MindSpore is no dependency of the tests: this script runs it once, in a virtual
environment of its own, and the tests read what it wrote::

    python3.11 -m venv .venv-mindspore
    .venv-mindspore/bin/pip install "mindspore==2.10.0" "numpy<2"
    .venv-mindspore/bin/python tests/mindspore/record.py

(`numpy<2`: the wheel's extension modules were compiled against NumPy 1. With NumPy 2
the first comparison of a tensor with a number fails, as in `StepLR` and `lr=Tensor`.)

It writes into `tests/data/mindspore/`, or into the directory given as argument:

- `cases.json`: the MindSpore version, the number of steps and, for every case, the
  optimizer's class, its groups' hyperparameters (MindSpore's defaults filled in) and
  the numbers of the leaves that each group holds.
- `<case>.npz`, for leaf i and group k, float32 unless said otherwise:
  - `params_i`, shape (steps + 1, ...): the initial value and that after every step;
  - `grads_i`, shape (steps, ...): the gradients;
  - `exp_avg_i`, `exp_inf_i`: the moments m and u after the last step;
  - `lr_k`, shape (steps,): the learning rate that each step used;
  - `step_t`, int32: the optimizer's step count after the last step.

Seeds are fixed and zip members carry no date, so that a second run on the same kind of
machine writes the same bytes.

Where MindSpore 2.10.0 on CPU departs from what it documents, or leaves it open; the
first two are in the recorded numbers:

- 1 - beta1^t is computed in float32. What the subtraction cancels is lost: the relative
  error of the update is up to 3e-7 at beta1 = 0.9, 2e-6 at 0.99 and 2e-5 at 0.999.
- The documented equations of `experimental.optim.Adamax` leave out `maximize`. It
  negates the gradient before the decay is added, as in PyTorch.
- lr = 0 and eps = 0 are refused, though only values below 0 are documented to be; a
  NaN eps or beta is accepted, and so is anything in a group's own betas and eps, which
  are never checked. An lr of another type, NumPy's float32 for one, is a TypeError
  instead of the documented ValueError.
- One step count serves all groups, and `add_param_group` after the construction breaks
  the next step, because the moments are allocated in the constructor only.
- A learning rate set with `group["lr"] = x` counts only if x is a float; an int or a
  Tensor is silently ignored. The scheduler's way, `ops.assign`, always works.
- The maximum passes over a NaN gradient: u stays finite (m and the parameter do not).
- Numbers below float32's smallest normal one are flushed to zero, so that an eps under
  1.2e-38 counts as 0 and a zero gradient gives NaN.
- `nn.AdaMax` leaves parameters with "beta" or "gamma" in their names without decay.
"""

import argparse
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mindspore
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.experimental import optim

STEPS = 50
DATA = Path(__file__).resolve().parents[1] / "data" / "mindspore"

Shape = tuple[int, ...]
Gradients = Callable[[np.random.Generator, Shape], np.ndarray]


def ordinary(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Draw normal gradients that shrink tenfold: both sides of the max get their turn.

    Args:
      rng: Where the randomness comes from.
      shape: The shape of the parameter.

    Returns:
      One gradient per step; shape (STEPS, *shape). The same holds for all below.
    """
    return rng.standard_normal((STEPS, *shape)) * _per_step(np.logspace(0, -1), shape)


def sparse(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Draw gradients of which four in five are exactly 0, and all of the first element.

    That element never moves, and the others have u = eps until their first gradient.
    """
    gradients = ordinary(rng, shape) * (rng.random((STEPS, *shape)) < 0.2)
    gradients.reshape(STEPS, -1)[:, 0] = 0.0
    return gradients


def magnitudes(low: float, high: float) -> Gradients:
    """Make gradients of either sign whose logarithm is uniform in [low, high]."""

    def draw(rng: np.random.Generator, shape: Shape) -> np.ndarray:
        exponent = rng.uniform(low, high, (STEPS, *shape))
        return rng.choice([-1.0, 1.0], (STEPS, *shape)) * 10.0**exponent

    return draw


def _per_step(values: np.ndarray, shape: Shape) -> np.ndarray:
    """Give one value per step the axes to broadcast against gradients of `shape`."""
    return values.reshape(STEPS, *(1 for _ in shape))


@dataclass(frozen=True)
class Group:
    """A parameter group: the settings that it changes, and its parameters' shapes."""

    settings: dict[str, Any] = field(default_factory=dict)
    shapes: tuple[Shape, ...] = ((2,), (2, 3))


@dataclass(frozen=True)
class Case:
    """A run to record.

    Attributes:
      groups: The parameter groups; a single one is passed as a plain list.
      gradients: Draws the gradients of a leaf.
      start: The largest initial modulus of a parameter. 0 lets tiny steps be seen.
      lr_changes: Step index -> {group index: learning rate from that step on}.
      scheduler: Makes a scheduler, which steps after every step of the optimizer.
      optimizer: `Adamax` of `mindspore.experimental.optim`, or `AdaMax` of
        `mindspore.nn`.
    """

    groups: tuple[Group, ...] = (Group(),)
    gradients: Gradients = ordinary
    start: float = 1.0
    lr_changes: dict[int, dict[int, float]] = field(default_factory=dict)
    scheduler: Callable[[Any], Any] | None = None
    optimizer: str = "Adamax"


def one_group(**settings: Any) -> tuple[Group, ...]:
    """Return a single group with these settings."""
    return (Group(settings),)


CASES = {
    "defaults": Case(),
    "lr": Case(one_group(lr=0.1)),
    "betas": Case(one_group(lr=0.05, betas=(0.7, 0.9))),
    "betas_beta1_above_beta2": Case(one_group(lr=0.05, betas=(0.95, 0.5))),
    "betas_near_one": Case(one_group(lr=0.05, betas=(0.99, 0.9999))),
    "beta1_zero": Case(one_group(lr=0.05, betas=(0.0, 0.9))),
    "beta2_zero": Case(one_group(lr=0.05, betas=(0.9, 0.0))),
    "eps_large": Case(one_group(lr=0.1, eps=0.5)),
    "weight_decay": Case(one_group(lr=0.05, weight_decay=0.5)),
    "maximize": Case(one_group(lr=0.05, maximize=True)),
    "weight_decay_maximize": Case(one_group(lr=0.05, weight_decay=0.5, maximize=True)),
    "two_groups": Case(
        (
            Group(
                {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2},
                shapes=((2, 3), (2,)),
            ),
            Group(
                {
                    "lr": 0.02,
                    "betas": (0.95, 0.99),
                    "eps": 0.3,
                    "weight_decay": 0.7,
                    "maximize": True,
                },
                shapes=((), (4,)),
            ),
        )
    ),
    "shapes": Case((Group({"lr": 0.05}, shapes=((), (1,), (3, 4), (2, 3, 2, 2))),)),
    "sparse_gradients": Case(one_group(lr=0.05), sparse),
    # From far below eps to a little above it: eps outside the max, or lost, shows.
    "small_gradients": Case(one_group(lr=0.05), magnitudes(-20, -6), start=0.0),
    "large_gradients": Case(one_group(lr=0.05), magnitudes(20, 37)),
    "mixed_gradients": Case(one_group(lr=0.05), magnitudes(-12, 12)),
    # The second group's learning rate alone goes down, then up.
    "lr_change": Case(
        (Group({"lr": 0.05}, ((2, 3),)), Group({"lr": 0.1}, ((4,),))),
        lr_changes={20: {1: 0.001}, 35: {1: 0.2}},
    ),
    "lr_scheduler": Case(
        one_group(lr=0.1, weight_decay=0.1),
        scheduler=lambda optimizer: optim.lr_scheduler.StepLR(optimizer, 20, 0.5),
    ),
    # `mindspore.nn.AdaMax` has its epsilon outside the maximum:
    #   m <- beta1 m + (1 - beta1) g;  u <- max(beta2 u, |g|)
    #   w <- w - lr / (1 - beta1^t) * m / (u + eps)
    # Its weight decay is coupled as well (g + weight_decay * w). It keeps beta1^t in
    # float32 by repeated multiplication.
    "nn_adamax": Case(
        one_group(lr=0.05, betas=(0.9, 0.95), eps=0.1), optimizer="AdaMax"
    ),
    "nn_adamax_weight_decay": Case(
        one_group(lr=0.05, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.5),
        optimizer="AdaMax",
    ),
}

# The defaults as MindSpore's constructor has them, not as this script believes.
DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(optim.Adamax.__init__).parameters.items()
    if parameter.default is not inspect.Parameter.empty
}


def leaves_per_group(case: Case) -> list[list[int]]:
    """Number the leaves through all groups, in the order MindSpore takes gradients."""
    numbers: Iterator[int] = iter(range(sum(len(g.shapes) for g in case.groups)))
    return [[next(numbers) for _ in group.shapes] for group in case.groups]


def describe(case: Case) -> dict[str, Any]:
    """Return what `cases.json` says about a case."""
    return {
        "optimizer": case.optimizer,
        "groups": [
            {**DEFAULTS, **group.settings, "leaves": leaves}
            for group, leaves in zip(case.groups, leaves_per_group(case), strict=True)
        ],
    }


def build(case: Case, parameters: list[Parameter]) -> Any:
    """Construct the optimizer over the parameters."""
    members = [[parameters[i] for i in leaves] for leaves in leaves_per_group(case)]
    if case.optimizer == "AdaMax":
        settings = {**DEFAULTS, **case.groups[0].settings}
        beta1, beta2 = settings["betas"]
        return nn.AdaMax(
            members[0],
            settings["lr"],
            beta1=beta1,
            beta2=beta2,
            eps=settings["eps"],
            weight_decay=settings["weight_decay"],
        )
    if len(members) == 1:
        return optim.Adamax(members[0], **case.groups[0].settings)
    return optim.Adamax(
        [
            {"params": params, **group.settings}
            for params, group in zip(members, case.groups, strict=True)
        ]
    )


def learning_rates(optimizer: Any) -> list[np.ndarray]:
    """Return the learning rate of every group as the next step will use it."""
    if isinstance(optimizer, nn.AdaMax):
        return [optimizer.learning_rate.asnumpy().copy()]
    return [lr.asnumpy().copy() for lr in optimizer.lrs]


def final_state(optimizer: Any) -> tuple[Any, Any, np.ndarray]:
    """Return m and u of every leaf, and the step count."""
    if isinstance(optimizer, nn.AdaMax):
        step = optimizer.global_step.asnumpy().reshape(())
        return optimizer.moment1, optimizer.moment2, step
    return optimizer.exp_avg, optimizer.exp_inf, optimizer.step_t.asnumpy()


def record(name: str, case: Case) -> dict[str, Any]:
    """Run a case and return the arrays of its file."""
    rng = np.random.default_rng(list(name.encode()))  # whatever the other cases draw
    shapes = [shape for group in case.groups for shape in group.shapes]
    initial = [
        (case.start * rng.uniform(-1, 1, shape)).astype(np.float32) for shape in shapes
    ]
    gradients = [case.gradients(rng, shape).astype(np.float32) for shape in shapes]
    parameters = [
        Parameter(Tensor(value), name=f"leaf_{i}") for i, value in enumerate(initial)
    ]
    optimizer = build(case, parameters)
    scheduler = case.scheduler(optimizer) if case.scheduler else None

    trajectories = [[value] for value in initial]
    rates: list[list[np.ndarray]] = []
    for step in range(STEPS):
        for group, lr in case.lr_changes.get(step, {}).items():
            # As MindSpore's schedulers do: the learning rate is a Parameter.
            ops.assign(optimizer.param_groups[group]["lr"], Tensor(lr))
        rates.append(learning_rates(optimizer))
        optimizer(tuple(Tensor(leaf[step]) for leaf in gradients))
        if scheduler is not None:
            scheduler.step()
        for trajectory, parameter in zip(trajectories, parameters, strict=True):
            trajectory.append(parameter.asnumpy().copy())

    exp_avg, exp_inf, step_t = final_state(optimizer)
    arrays: dict[str, Any] = {"step_t": step_t}
    for k, group_rates in enumerate(zip(*rates, strict=True)):
        arrays[f"lr_{k}"] = np.stack(group_rates)
    for i in range(len(shapes)):
        arrays[f"params_{i}"] = np.stack(trajectories[i])
        arrays[f"grads_{i}"] = gradients[i]
        arrays[f"exp_avg_{i}"] = exp_avg[i].asnumpy()
        arrays[f"exp_inf_{i}"] = exp_inf[i].asnumpy()
    return arrays


def main() -> None:
    """Record all cases."""
    parser = argparse.ArgumentParser(description="Record MindSpore's Adamax.")
    parser.add_argument("directory", type=Path, nargs="?", default=DATA)
    directory = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)

    for name, case in CASES.items():
        np.savez_compressed(directory / f"{name}.npz", **record(name, case))
    overview = {
        "mindspore": mindspore.__version__,
        "steps": STEPS,
        "cases": {name: describe(case) for name, case in CASES.items()},
    }
    (directory / "cases.json").write_text(json.dumps(overview, indent=1) + "\n")


if __name__ == "__main__":
    main()
