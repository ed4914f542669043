"""The classes against MindSpore: its signatures, printed values and recorded runs."""

import inspect
import json
import pathlib

import numpy as np
import pytest

from adamax_optax import lr_scheduler
from tests.lr_scheduler.scheduler_settings import Groups, arguments, make

RECORDED = json.loads(
    (pathlib.Path(__file__).parents[1] / "data/mindspore/schedulers.json").read_text()
)


PYTORCH_ONLY = {"verbose", "cycle_momentum", "base_momentum", "max_momentum"}


def test_signatures_equal_mindspore():
    ours = {
        name: [
            [argument, "required" if default is inspect.Parameter.empty else default]
            for argument, default in arguments(getattr(lr_scheduler, name))
            if argument not in PYTORCH_ONLY
        ]
        for name in lr_scheduler.__all__
        if name not in ("ChainedScheduler", "OneCycleLR")
    }
    assert ours == RECORDED["signatures"]


# The values that MindSpore's documentation prints, and those that its comments name
# (they start before the first step).
DOCUMENTED = [
    ("StepLR", dict(step_size=2, gamma=0.1), 0.05, 0)
    + ([0.05, 0.05, 0.005, 0.005, 0.0005, 0.0005],),
    ("LinearLR", dict(start_factor=0.5, total_iters=4), 0.05, 0)
    + ([0.025, 0.03125, 0.0375, 0.04375, 0.05, 0.05],),
    ("ExponentialLR", dict(gamma=0.5), 0.01, 1) + ([0.005, 0.0025, 0.00125],),
    ("PolynomialLR", {}, 0.01, 1) + ([0.008, 0.006, 0.004, 0.002, 0, 0],),
    ("LambdaLR", dict(lr_lambda=[lambda t: 0.9**t]), 0.01, 1)
    + ([0.009, 0.0081, 0.00729],),
    ("MultiplicativeLR", dict(lr_lambda=lambda t: 0.95), 0.01, 1)
    + ([0.0095, 0.009025, 0.00857375],),
    ("MultiStepLR", dict(milestones=[2, 4], gamma=0.1), 0.05, 1)
    + ([0.05, 0.005, 0.005, 0.0005, 0.0005, 0.0005],),
    ("ConstantLR", dict(factor=0.5, total_iters=4), 0.05, 1)
    + ([0.025, 0.025, 0.025, 0.05, 0.05, 0.05],),
    ("CyclicLR", dict(base_lr=0.01, max_lr=0.1), 0.1, 1)
    + ([0.010045, 0.01009, 0.010135, 0.01018, 0.010225],),
    ("CosineAnnealingLR", dict(T_max=2), 0.1, 1) + ([0.05, 0, 0.05, 0.1, 0.05, 0],),
]


@pytest.mark.parametrize(
    ("name", "settings", "lr", "first", "expected"),
    DOCUMENTED,
    ids=[row[0] for row in DOCUMENTED],
)
def test_documented_values(name, settings, lr, first, expected):
    optimizer = Groups(lr)
    scheduler = make(name, optimizer, settings)
    values = [scheduler.get_last_lr()[0]]
    for _ in range(first + len(expected) - 1):
        scheduler.step()
        values.append(scheduler.get_last_lr()[0])
    np.testing.assert_allclose(values[first:], expected, rtol=1e-6, atol=1e-18)


def test_documented_values_of_warm_restarts_within_epochs():
    scheduler = lr_scheduler.CosineAnnealingWarmRestarts(Groups(0.1), 2)
    values = []
    for epoch in range(2):
        for i in range(3):
            scheduler.step(epoch + i / 3)
            values += scheduler.get_last_lr()
    expected = [0.1, 0.0933013, 0.075, 0.05, 0.025, 0.00669873]
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_documented_values_of_sequential():
    optimizer = Groups(0.1)
    first = lr_scheduler.ConstantLR(optimizer, factor=0.1, total_iters=2)
    second = lr_scheduler.ExponentialLR(optimizer, gamma=0.9)
    scheduler = lr_scheduler.SequentialLR(
        optimizer, schedulers=[first, second], milestones=[2]
    )
    values = []
    for _ in range(6):
        scheduler.step()
        values += scheduler.get_last_lr()
    np.testing.assert_allclose(
        values, [0.01, 0.1, 0.09, 0.081, 0.0729, 0.06561], rtol=1e-6
    )


def test_documented_values_of_plateau():
    scheduler = lr_scheduler.ReduceLROnPlateau(Groups(0.1), "min", patience=0)
    values = []
    for metric in [1, 1.5, 1.8, 0.4, 0.5]:
        scheduler.step(metric)
        values += scheduler.get_last_lr()
    np.testing.assert_allclose(values, [0.1, 0.01, 0.001, 0.001, 0.0001], rtol=1e-6)


def test_documented_subclass():
    class ConstantLR(lr_scheduler.LRScheduler):
        def __init__(self, optimizer, factor=0.5, total_iters=3, last_epoch=-1):
            self.factor = factor
            self.total_iters = total_iters
            super().__init__(optimizer, last_epoch)

        def get_lr(self):
            if self.last_epoch == 0:
                return [lr * self.factor for lr in self._last_lr]
            if self.last_epoch != self.total_iters:
                return [lr * 1.0 for lr in self._last_lr]
            return [lr / self.factor for lr in self._last_lr]

    scheduler = ConstantLR(Groups(0.01))
    values = []
    for _ in range(4):
        scheduler.step()
        values += scheduler.get_last_lr()
    np.testing.assert_allclose(values, [0.005, 0.005, 0.01, 0.01], rtol=1e-6)


def recorded_id(case):
    names = "+".join(name for name, _ in case["schedulers"])
    return names if case["milestones"] is None else f"Sequential({names})"


@pytest.mark.parametrize("case", RECORDED["cases"], ids=recorded_id)
def test_recorded_from_mindspore(case):
    optimizer = Groups(*case["lrs"])
    schedulers = [make(name, optimizer, kwargs) for name, kwargs in case["schedulers"]]
    if case["milestones"] is not None:
        milestones = case["milestones"]
        schedulers = [lr_scheduler.SequentialLR(optimizer, schedulers, milestones)]
    values = [optimizer.lrs()]
    for argument in case["steps"]:
        for scheduler in schedulers:
            scheduler.step() if argument is None else scheduler.step(argument)
        values.append(optimizer.lrs())
    # MindSpore computes in float32 and multiplies up its rounding errors.
    np.testing.assert_allclose(values, case["values"], rtol=2e-6, atol=1e-9)
