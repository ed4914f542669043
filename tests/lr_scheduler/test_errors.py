"""Errors: a refused constructor, step or state changes nothing."""

import copy
import math

import numpy as np
import pytest

from adamax_optax import lr_scheduler
from tests.lr_scheduler.scheduler_settings import Groups, Rate, make


def refuse(make, exception, match, optimizer):
    before = copy.deepcopy(optimizer.param_groups)
    with pytest.raises(exception, match=match):
        make(optimizer)
    assert optimizer.param_groups == before


REFUSED = [
    ("StepLR", dict(step_size=0), ValueError, "step_size must be an int >= 1, got 0"),
    ("StepLR", dict(step_size=2.5), TypeError, "step_size must be an int, got 2.5"),
    ("StepLR", dict(step_size=True), TypeError, "step_size"),
    (
        "StepLR",
        dict(step_size=2, gamma=-0.1),
        ValueError,
        r"gamma .*\[0, inf\), got -0",
    ),
    ("StepLR", dict(step_size=2, gamma="0.1"), TypeError, "gamma must be a number"),
    ("StepLR", dict(step_size=2, gamma=math.nan), ValueError, "gamma .*got nan"),
    ("StepLR", dict(step_size=2, last_epoch=-2), ValueError, "last_epoch .*got -2"),
    ("StepLR", dict(step_size=2, last_epoch=1.0), ValueError, "last_epoch .*got 1.0"),
    ("StepLR", dict(step_size=2, last_epoch=3), KeyError, "no 'initial_lr'"),
    ("MultiStepLR", dict(milestones=3), TypeError, "milestones must be a list"),
    ("MultiStepLR", dict(milestones="34"), TypeError, "milestones must be a list"),
    ("MultiStepLR", dict(milestones=[2, 4.5]), TypeError, r"milestones\[1\] must be"),
    ("MultiStepLR", dict(milestones=[-1]), ValueError, r"milestones\[0\] .*got -1"),
    ("MultiStepLR", dict(milestones=[2], gamma=[1]), TypeError, "gamma must be a"),
    ("ExponentialLR", dict(gamma=math.inf), ValueError, "gamma .*got inf"),
    ("ConstantLR", dict(factor=1.5), ValueError, r"factor .*\[0, 1\], got 1.5"),
    ("ConstantLR", dict(total_iters=2.5), TypeError, "total_iters must be an int"),
    ("LinearLR", dict(start_factor=0), ValueError, r"start_factor .*\(0, 1\], got 0"),
    ("LinearLR", dict(start_factor=1.1), ValueError, "start_factor .*got 1.1"),
    ("LinearLR", dict(end_factor=-0.1), ValueError, r"end_factor .*\[0, 1\], got -0.1"),
    ("LinearLR", dict(total_iters=-1), ValueError, "total_iters .*got -1"),
    ("PolynomialLR", dict(total_iters=0), ValueError, "total_iters .*>= 1, got 0"),
    ("PolynomialLR", dict(power=-1.0), ValueError, "power .*got -1.0"),
    ("PolynomialLR", dict(power=None), TypeError, "power must be a number, got None"),
    ("CosineAnnealingLR", dict(T_max=0), ValueError, "T_max .*got 0"),
    ("CosineAnnealingLR", dict(T_max="2"), TypeError, "T_max must be a number"),
    ("CosineAnnealingLR", dict(T_max=2, eta_min="0"), TypeError, "eta_min must be"),
    ("CosineAnnealingWarmRestarts", dict(T_0=0), ValueError, "T_0 .*got 0"),
    ("CosineAnnealingWarmRestarts", dict(T_0=1.5), ValueError, "T_0 must be an int"),
    ("CosineAnnealingWarmRestarts", dict(T_0=2, T_mult=0), ValueError, "T_mult .*>= 1"),
    ("CosineAnnealingWarmRestarts", dict(T_0=2, T_mult=1.5), ValueError, "T_mult must"),
    ("CosineAnnealingWarmRestarts", dict(T_0=2, eta_min="0"), ValueError, "eta_min"),
    (
        "CyclicLR",
        dict(base_lr=[0.1], max_lr=1),
        ValueError,
        "base_lr .*list of 2.*got 1",
    ),
    ("CyclicLR", dict(base_lr=0, max_lr=[1] * 3), ValueError, "max_lr .*list of 2"),
    ("CyclicLR", dict(base_lr=-1, max_lr=1), ValueError, "base_lr .*got -1"),
    (
        "CyclicLR",
        dict(base_lr=0, max_lr=1, mode="x"),
        ValueError,
        "mode must .*got 'x'",
    ),
    ("CyclicLR", dict(base_lr=0, max_lr=1, scale_fn=1), TypeError, "scale_fn must be"),
    ("CyclicLR", dict(base_lr=0, max_lr=1, step_size_up=0), ValueError, "step_size_up"),
    ("CyclicLR", dict(base_lr=0, max_lr=1, step_size_down=-1), ValueError, "_down"),
    ("CyclicLR", dict(base_lr=0, max_lr=1, last_epoch=-3), ValueError, "last_epoch"),
    ("CyclicLR", dict(base_lr=0, max_lr=1, last_epoch=3), KeyError, "initial_lr"),
    ("LambdaLR", dict(lr_lambda=[abs]), ValueError, "lr_lambda .*list of 2.*got 1"),
    ("LambdaLR", dict(lr_lambda=0.5), TypeError, "lr_lambda must be a function"),
    ("LambdaLR", dict(lr_lambda=lambda t: None), TypeError, "unsupported operand"),
    ("LambdaLR", dict(lr_lambda=lambda t: [1] * 0), TypeError, "multiply"),
    ("MultiplicativeLR", dict(lr_lambda=[abs, 1]), TypeError, "lr_lambda must be a"),
    ("ReduceLROnPlateau", dict(mode="low"), ValueError, "mode must be .*got 'low'"),
    ("ReduceLROnPlateau", dict(threshold_mode="x"), ValueError, "threshold_mode"),
    ("ReduceLROnPlateau", dict(factor=1.0), ValueError, r"factor .*\[0, 1\), got 1.0"),
    ("ReduceLROnPlateau", dict(patience=-1), ValueError, "patience .*got -1"),
    ("ReduceLROnPlateau", dict(threshold=-1), ValueError, "threshold .*got -1"),
    ("ReduceLROnPlateau", dict(cooldown=0.5), TypeError, "cooldown must be an int"),
    ("ReduceLROnPlateau", dict(min_lr=[0.1]), ValueError, "min_lr .*list of 2"),
    ("ReduceLROnPlateau", dict(min_lr=-0.1), ValueError, "min_lr .*got -0.1"),
    ("ReduceLROnPlateau", dict(eps=math.nan), ValueError, "eps .*got nan"),
    ("LRScheduler", dict(), NotImplementedError, "LRScheduler must define get_lr"),
]


@pytest.mark.parametrize(("name", "settings", "exception", "match"), REFUSED)
def test_a_refused_constructor_leaves_the_groups(name, settings, exception, match):
    refuse(
        lambda optimizer: make(name, optimizer, settings),
        exception,
        match,
        Groups(0.5, 0.25),
    )


def test_a_refused_sequence_leaves_the_groups():
    optimizer, other = Groups(0.5), Groups(0.5)
    parts = [lr_scheduler.StepLR(optimizer, 2), lr_scheduler.ConstantLR(optimizer)]
    foreign = lr_scheduler.StepLR(other, 2)
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer)
    for schedulers, milestones, exception, match in [
        ([], [], ValueError, "schedulers must hold at least one"),
        (parts, [], ValueError, "milestones must have 1 entries, one fewer than sched"),
        (parts, 3, TypeError, "milestones must be a list"),
        (parts, [2.5], TypeError, r"milestones\[0\] must be an int"),
        ([*parts, parts[0]], [4, 2], ValueError, r"must not decrease, got \[4, 2\]"),
        ([*parts, 3], [2, 4], TypeError, r"schedulers\[2\] must be a scheduler"),
        ([*parts, foreign], [2, 4], ValueError, r"schedulers\[2\], a StepLR, has ano"),
        ([plateau, *parts], [2, 4], ValueError, r"schedulers\[0\] is a ReduceLROnPlat"),
    ]:
        refuse(
            lambda o, s=schedulers, m=milestones: lr_scheduler.SequentialLR(o, s, m),
            exception,
            match,
            optimizer,
        )
    refuse(
        lambda o: lr_scheduler.SequentialLR(o, parts, [2], last_epoch=None),
        ValueError,
        "last_epoch must be an int, got None",
        optimizer,
    )


@pytest.mark.parametrize(
    "optimizer", [None, Groups(), object(), type("O", (), {"param_groups": [{}]})()]
)
@pytest.mark.parametrize("name", sorted({*lr_scheduler.__all__} - {"ChainedScheduler"}))
def test_an_object_that_is_no_optimizer_is_refused(name, optimizer):
    settings = {
        "StepLR": dict(step_size=1),
        "MultiStepLR": dict(milestones=[]),
        "ExponentialLR": dict(gamma=1.0),
        "LambdaLR": dict(lr_lambda=abs),
        "MultiplicativeLR": dict(lr_lambda=abs),
        "CosineAnnealingLR": dict(T_max=1),
        "CosineAnnealingWarmRestarts": dict(T_0=1),
        "CyclicLR": dict(base_lr=0.1, max_lr=1),
        "SequentialLR": dict(schedulers=[], milestones=[]),
        "OneCycleLR": dict(max_lr=1, total_steps=1),
    }.get(name, {})
    with pytest.raises(TypeError, match="optimizer must have param_groups"):
        make(name, optimizer, settings)


@pytest.mark.parametrize("lr", ["0.1", None, np.array([0.1, 0.2]), abs])
def test_a_learning_rate_that_is_not_one_number_is_refused(lr):
    with pytest.raises(TypeError, match="lr must be one number, got"):
        lr_scheduler.StepLR(Groups(lr), 2)


def test_a_refused_step_changes_nothing():
    class Short(lr_scheduler.LRScheduler):
        def get_lr(self):
            if self.last_epoch == 2:
                self.tried = True
                return [0.1]
            return [lr / 2 for lr in self._last_lr]

    optimizer = Groups(1.0, 2.0)
    scheduler = Short(optimizer)
    scheduler.step()
    before = copy.deepcopy((optimizer.param_groups, scheduler.state_dict()))
    with pytest.raises(ValueError, match="must return 2 learning rates, .*got .0.1."):
        scheduler.step()
    assert (optimizer.param_groups, scheduler.state_dict()) == before

    scheduler = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3)
    scheduler.step(1.5)
    before = copy.deepcopy((optimizer.param_groups, scheduler.state_dict()))
    for epoch, exception in (
        (-1, ValueError),
        (math.nan, ValueError),
        ("1", ValueError),
    ):
        with pytest.raises(exception, match="epoch must be a number"):
            scheduler.step(epoch)
    assert (optimizer.param_groups, scheduler.state_dict()) == before

    plateau = lr_scheduler.ReduceLROnPlateau(optimizer)
    before = copy.deepcopy((optimizer.param_groups, plateau.state_dict()))
    for metrics in ("1", None, [1.0], np.zeros(2)):
        with pytest.raises(TypeError, match="metrics must be one number"):
            plateau.step(metrics)
    with pytest.raises(ValueError, match="epoch must be a number"):
        plateau.step(1.0, epoch=-1)
    assert (optimizer.param_groups, plateau.state_dict()) == before
    plateau.step(1.0, epoch=7)
    assert plateau.last_epoch == 7


def test_a_refused_state_changes_nothing():
    optimizer = Groups(0.5)
    step = lr_scheduler.StepLR(optimizer, 2)
    fixed = lr_scheduler.ConstantLR(optimizer)
    fn = lr_scheduler.LambdaLR(optimizer, Rate(0.5))
    cyclic = lr_scheduler.CyclicLR(optimizer, 0.1, 0.2)
    sequential = lr_scheduler.SequentialLR(optimizer, [step, fixed], [2])
    sequential.step()
    saved = sequential.state_dict()
    swapped = {**saved, "_schedulers": saved["_schedulers"][::-1]}
    mixed = {**saved, "_schedulers": [saved["_schedulers"][0] | {"last_epoch": 9}, {}]}
    two = lr_scheduler.StepLR(Groups(0.5, 0.5), 2).state_dict()
    for scheduler, state, match in [
        (
            step,
            {"state": {}, "param_groups": []},
            "must be the saved state of a StepLR",
        ),
        (step, fixed.state_dict(), "StepLR; .* lacks .*step_size"),
        (step, two, r"\['base_lrs'\] must have 1 to 1 entries"),
        (
            fn,
            {**fn.state_dict(), "lr_lambdas": [{}] * 2},
            "must have at most 1 entries",
        ),
        (fn, {}, "must be the saved state of a LambdaLR"),
        (cyclic, {}, "must be the saved state of a CyclicLR"),
        (sequential, {}, "must be the saved state of a SequentialLR"),
        (sequential, swapped, "saved state of a StepLR"),
        (sequential, mixed, "saved state of a ConstantLR"),
        (sequential, {"_schedulers": saved["_schedulers"]}, "state of a SequentialLR"),
    ]:
        before = copy.deepcopy((optimizer.param_groups, scheduler.state_dict()))
        with pytest.raises(ValueError, match=match):
            scheduler.load_state_dict(state)
        assert (optimizer.param_groups, scheduler.state_dict()) == before
