"""Errors: a refused constructor, step or state changes nothing."""

import copy
import math

import numpy as np
import pytest

from adamax_optax import lr_scheduler
from tests.lr_scheduler.scheduler_settings import Groups, Rate, make


def refuse(make, exception, match, optimizer):
    before = copy.deepcopy(optimizer.param_groups)
    with pytest.raises(exception, match=match) as error:
        make(optimizer)
    assert optimizer.param_groups == before
    return error.value.args[0]


ONE = dict(max_lr=1, total_steps=9)
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
    ("ReduceLROnPlateau", dict(verbose="yes"), ValueError, "verbose must be False, or"),
    (
        "StepLR",
        dict(step_size=2, verbose="yes"),
        ValueError,
        "verbose must .*got 'yes'",
    ),
    ("OneCycleLR", dict(max_lr=1), ValueError, "total_steps, or epochs and steps_per"),
    ("OneCycleLR", dict(max_lr=1, epochs=3), ValueError, "got epochs=3 and steps_per"),
    ("OneCycleLR", dict(max_lr=1, total_steps=0), ValueError, "total_steps .*got 0"),
    ("OneCycleLR", dict(max_lr=1, total_steps=9.0), ValueError, "total_steps .*9.0"),
    ("OneCycleLR", dict(max_lr=1, epochs=0, steps_per_epoch=3), ValueError, "epochs"),
    (
        "OneCycleLR",
        dict(max_lr=1, epochs=3, steps_per_epoch=0),
        ValueError,
        "steps_per",
    ),
    ("OneCycleLR", dict(max_lr=[1], total_steps=9), ValueError, "max_lr .*list of 2"),
    ("OneCycleLR", dict(max_lr="1", total_steps=9), TypeError, "max_lr must be a num"),
    ("OneCycleLR", ONE | dict(pct_start=1.5), ValueError, "pct_start .*got 1.5"),
    ("OneCycleLR", ONE | dict(anneal_strategy="x"), ValueError, "anneal_strategy must"),
    ("OneCycleLR", ONE | dict(div_factor=0), ValueError, r"div_factor .*\(0, inf"),
    ("OneCycleLR", ONE | dict(final_div_factor=0), ValueError, "final_div_factor"),
    ("OneCycleLR", ONE | dict(base_momentum=1.0), ValueError, "base_momentum .*got 1"),
    ("OneCycleLR", ONE | dict(max_momentum=[0.9]), ValueError, "max_momentum .*of 2"),
    ("OneCycleLR", ONE | dict(last_epoch=3), KeyError, "no 'initial_lr'"),
    ("LRScheduler", dict(), NotImplementedError, "LRScheduler must define get_lr"),
]


@pytest.mark.parametrize(("name", "settings", "exception", "match"), REFUSED)
def test_a_refused_constructor_leaves_the_groups(name, settings, exception, match):
    message = refuse(
        lambda optimizer: make(name, optimizer, settings),
        exception,
        match,
        Groups(0.5, 0.25),
    )
    # Python's own errors do not end in a period.
    assert message.endswith(".") or name == "LambdaLR"


def test_a_refused_sequence_leaves_the_groups():
    optimizer, other = Groups(0.5), Groups(0.5)
    parts = [lr_scheduler.StepLR(optimizer, 2), lr_scheduler.ConstantLR(optimizer)]
    foreign = lr_scheduler.StepLR(other, 2)
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer)
    for schedulers, milestones, exception, match in [
        ([], [], ValueError, "schedulers must hold at least one"),
        (parts, [], ValueError, "milestones must have length 1, one less than sched"),
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
    multi = lr_scheduler.MultiStepLR(optimizer, [2])
    multi_state = multi.state_dict()
    for scheduler, state, match in [
        (step, None, "saved state of a StepLR; got one with None"),
        (step, 3, "saved state of a StepLR"),
        (fn, [], "saved state of a LambdaLR"),
        (cyclic, None, "saved state of a CyclicLR"),
        (multi, None, "saved state of a MultiStepLR"),
        (multi, multi_state | {"milestones": [2]}, r"\['milestones'\] must be a dict"),
        (multi, multi_state | {"milestones": {"x": 1}}, r"must be a dict from epochs"),
        (sequential, None, "saved state of a SequentialLR"),
        (
            sequential,
            saved | {"_schedulers": saved["_schedulers"][:1]},
            "have 2 states",
        ),
        (sequential, saved | {"_schedulers": 3}, r"\['_schedulers'\] must be like"),
        (sequential, saved | {"_schedulers": {"0": 1, "2": 2}}, "state of a StepLR"),
        (
            step,
            step.state_dict() | {"last_epoch": "3"},
            r"\['last_epoch'\] must be like",
        ),
        (
            step,
            step.state_dict() | {"gamma": None},
            r"\['gamma'\] must be like 0.1, got",
        ),
        (step, step.state_dict() | {"base_lrs": ["1"]}, r"\['base_lrs'\] must have 1"),
        (step, step.state_dict() | {"base_lrs": []}, r"\['base_lrs'\] must have 1 to"),
        (step, step.state_dict() | {"_group_lrs": 3}, r"\['_group_lrs'\] must be like"),
        (fn, fn.state_dict() | {"lr_lambdas": [{"rate": "x"}]}, r"\['rate'\] must be"),
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
        with pytest.raises(ValueError, match=match) as error:
            scheduler.load_state_dict(state)
        assert str(error.value).endswith(".")
        assert (optimizer.param_groups, scheduler.state_dict()) == before


def test_after_a_group_is_removed_the_scheduler_asks_for_its_entries():
    for make_one, names in [
        (lambda o: lr_scheduler.StepLR(o, 2), ["base_lrs"]),
        (lambda o: lr_scheduler.LambdaLR(o, Rate(0.5)), ["lr_lambdas", "base_lrs"]),
        (
            lambda o: lr_scheduler.CyclicLR(o, 0.1, 0.3),
            ["base_lrs", "max_lrs", "base_momentums", "max_momentums"],
        ),
        (lambda o: lr_scheduler.ReduceLROnPlateau(o), ["min_lrs"]),
    ]:
        optimizer = Groups(0.5, 0.25)
        scheduler = make_one(optimizer)
        metric = [1.0] if "min_lrs" in names else []
        del optimizer.param_groups[0]
        for name in names:
            before = copy.deepcopy((optimizer.param_groups, scheduler.state_dict()))
            with pytest.raises(
                ValueError, match=f"delete its entry from scheduler.{name}"
            ):
                scheduler.step(*metric)
            assert (optimizer.param_groups, scheduler.state_dict()) == before
            del getattr(scheduler, name)[0]
        scheduler.step(*metric)
        assert len(scheduler.get_last_lr()) == 1
