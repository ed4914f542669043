"""Record what MindSpore's learning-rate schedulers do, for the tests of the classes.

Run it with a Python that has MindSpore (recorded with 2.10 on a CPU):

    python tests/mindspore/record_schedulers.py

It writes tests/data/mindspore/schedulers.json: each class's arguments and defaults, and
the cases below. Every case makes the schedulers in order on one optimizer with one
group per learning rate, puts them into a SequentialLR if it has milestones, and steps
each of them once per epoch: `step()`, or `step(argument)` with the case's arguments.
The learning rates are recorded after the construction and after each step.
tests/lr_scheduler/test_mindspore.py reads the file, and has the values that
MindSpore's documentation prints as a table.
"""

import inspect
import json
import pathlib
from typing import Any

STEPS = 12


def case(*schedulers: Any, lrs: Any = (0.1,), milestones: Any = None, steps: Any = ()):
    return {
        "schedulers": [[name, kwargs] for name, kwargs in schedulers],
        "milestones": milestones,
        "lrs": list(lrs),
        "steps": list(steps) or [None] * STEPS,
    }


METRICS = [1.0, 0.9, 0.95, 0.93, 0.92, 0.5, 0.6, 0.55, 0.52, 0.51, 0.505, 0.51]

CASES = [
    case(("StepLR", {"step_size": 3})),
    case(("StepLR", {"step_size": 3, "gamma": 0.5}), lrs=(0.1, 0.02)),
    case(("StepLR", {"step_size": 3, "gamma": 0.5}), steps=[0, 2, 3, 7, 9, 4]),
    case(("LinearLR", {}), lrs=(0.1, 0.02)),
    case(("LinearLR", {"start_factor": 0.2, "end_factor": 0.7, "total_iters": 7})),
    case(("LinearLR", {"total_iters": 4}), steps=[0, 2, 3, 7, 1]),
    case(("ExponentialLR", {"gamma": 0.9}), lrs=(0.1, 0.02)),
    case(("ExponentialLR", {"gamma": 0.9}), steps=[0, 2, 3, 7, 1]),
    case(("PolynomialLR", {"total_iters": 8, "power": 0.5}), lrs=(0.1, 0.02)),
    case(("PolynomialLR", {"total_iters": 8, "power": 2.0})),
    case(("MultiStepLR", {"milestones": [2, 5, 5, 9]}), lrs=(0.1, 0.02)),
    case(("ConstantLR", {}), lrs=(0.1, 0.02)),
    case(("ConstantLR", {"factor": 0.2, "total_iters": 4}), steps=[0, 2, 3, 4, 7, 1]),
    case(("CosineAnnealingLR", {"T_max": 5, "eta_min": 0.01}), lrs=(0.1, 0.05)),
    case(("CosineAnnealingLR", {"T_max": 5, "eta_min": 0.01}), steps=[0, 3, 5, 7, 1]),
    case(("CosineAnnealingWarmRestarts", {"T_0": 4}), lrs=(0.1, 0.02)),
    case(("CosineAnnealingWarmRestarts", {"T_0": 2, "T_mult": 2, "eta_min": 0.01})),
    case(
        ("CosineAnnealingWarmRestarts", {"T_0": 3}), steps=[0.5, None, None, 2.5, None]
    ),
    case(
        (
            "CyclicLR",
            {"base_lr": [0.01, 0.02], "max_lr": [0.1, 0.2], "step_size_up": 3},
        ),
        lrs=(0.1, 0.1),
    ),
    case(
        (
            "CyclicLR",
            {
                "base_lr": 0.01,
                "max_lr": 0.1,
                "step_size_up": 2,
                "step_size_down": 3,
                "mode": "triangular2",
            },
        )
    ),
    case(
        (
            "CyclicLR",
            {
                "base_lr": 0.01,
                "max_lr": 0.1,
                "step_size_up": 4,
                "mode": "exp_range",
                "gamma": 0.9,
            },
        )
    ),
    case(
        (
            "ReduceLROnPlateau",
            {"patience": 1, "factor": 0.5, "cooldown": 2, "min_lr": [0.03, 0.0]},
        ),
        lrs=(0.1, 0.02),
        steps=METRICS,
    ),
    case(
        (
            "ReduceLROnPlateau",
            {"mode": "max", "patience": 2, "threshold": 0.1, "threshold_mode": "abs"},
        ),
        steps=METRICS,
    ),
    case(
        ("ReduceLROnPlateau", {"mode": "max", "patience": 0, "threshold": 0.05}),
        steps=[-m for m in METRICS],
    ),
    # Chained.
    case(
        ("ConstantLR", {"factor": 0.1, "total_iters": 4}),
        ("ExponentialLR", {"gamma": 0.9}),
        lrs=(0.1, 0.02),
    ),
    case(
        ("LinearLR", {"start_factor": 0.25, "total_iters": 4}),
        ("CosineAnnealingLR", {"T_max": 6, "eta_min": 0.001}),
    ),
    case(
        ("StepLR", {"step_size": 3, "gamma": 0.5}),
        ("MultiStepLR", {"milestones": [4, 6], "gamma": 0.1}),
        ("PolynomialLR", {"total_iters": 9, "power": 1.5}),
    ),
    # One after the other.
    case(
        ("LinearLR", {"start_factor": 0.25, "total_iters": 4}),
        ("CosineAnnealingLR", {"T_max": 6}),
        milestones=[4],
        lrs=(0.1, 0.02),
    ),
    case(
        ("ConstantLR", {"factor": 0.5, "total_iters": 9}),
        ("ExponentialLR", {"gamma": 0.9}),
        ("StepLR", {"step_size": 2, "gamma": 0.5}),
        milestones=[3, 7],
    ),
]


def record(optim: Any, make_parameter: Any, setting: dict[str, Any]) -> list[Any]:
    groups = [
        {"params": [make_parameter(f"p{i}")], "lr": lr}
        for i, lr in enumerate(setting["lrs"])
    ]
    optimizer = optim.Adamax(groups)
    schedulers = [
        getattr(optim.lr_scheduler, name)(optimizer, **kwargs)
        for name, kwargs in setting["schedulers"]
    ]
    if setting["milestones"] is not None:
        schedulers = [
            optim.lr_scheduler.SequentialLR(
                optimizer, schedulers, setting["milestones"]
            )
        ]

    def now() -> list[float]:
        return [float(group["lr"].asnumpy()) for group in optimizer.param_groups]

    values = [now()]
    for argument in setting["steps"]:
        for scheduler in schedulers:
            scheduler.step() if argument is None else scheduler.step(argument)
        values.append(now())
    return values


def main() -> None:
    import mindspore
    import numpy as np
    from mindspore.experimental import optim

    def make_parameter(name: str) -> Any:
        return mindspore.Parameter(mindspore.Tensor(np.zeros(1, np.float32)), name=name)

    recorded = []
    for setting in CASES:
        try:
            values = record(optim, make_parameter, setting)
        except Exception as error:
            raise RuntimeError(f"MindSpore fails on {setting}") from error
        recorded.append({**setting, "values": values})
    signatures = {
        name: [
            [parameter.name, parameter.default]
            for parameter in inspect.signature(
                getattr(optim.lr_scheduler, name).__init__
            ).parameters.values()
            if parameter.name != "self"
        ]
        for name in optim.lr_scheduler.__all__
    }
    path = pathlib.Path(__file__).parents[1] / "data" / "mindspore" / "schedulers.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = {
        "mindspore": json.dumps(mindspore.__version__),
        "signatures": json.dumps(signatures, default=lambda empty: "required"),
        "cases": "[\n" + ",\n".join(map(json.dumps, recorded)) + "\n]",
    }
    text = ",\n".join(f'"{name}": {part}' for name, part in parts.items())
    path.write_text(f"{{\n{text}\n}}\n")


if __name__ == "__main__":
    main()
