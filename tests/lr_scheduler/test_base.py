"""Shared by all scheduler classes: numbers, saved state, groups added later."""

import copy
import pathlib
import pickle

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from adamax_optax import lr_scheduler
from tests.lr_scheduler.scheduler_settings import (
    LRS,
    NAMES,
    SETTINGS,
    Groups,
    Rate,
    make,
)


def test_the_package_does_not_import_the_optimizer():
    for path in pathlib.Path(lr_scheduler.__file__).parent.glob("*.py"):
        assert "adamax_optax.compat" not in path.read_text(), path


@pytest.mark.parametrize(
    "lr", [np.float32(0.25), np.array(0.25), np.array([0.25]), jnp.array(0.25), 1]
)
def test_learning_rates_become_python_floats(lr):
    optimizer = Groups(lr)
    scheduler = lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    assert type(optimizer.lrs()[0]) is float
    scheduler.step()
    assert optimizer.lrs() == [float(np.asarray(lr).item()) / 2]
    assert type(optimizer.param_groups[0]["initial_lr"]) is float
    optimizer.param_groups[0]["lr"] = jnp.array(0.125)
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    plateau.step(jnp.array(1.0))
    plateau.step(jnp.array([2.0]))
    assert optimizer.lrs() == [0.0625]


def test_numbers_may_come_from_numpy():
    scheduler = lr_scheduler.StepLR(Groups(0.5), np.int64(2), np.float32(0.5))
    scheduler.step(np.int64(4))
    assert scheduler.get_last_lr() == [0.125]
    scheduler.step(jnp.array(2))
    assert scheduler.get_last_lr() == [0.25]
    assert type(scheduler.last_epoch) is int


def test_returned_lists_are_copies():
    scheduler = lr_scheduler.StepLR(Groups(0.5), 2)
    scheduler.get_last_lr()[0] = 7.0
    scheduler.state_dict()["base_lrs"][0] = 7.0
    assert scheduler.get_last_lr() == scheduler.base_lrs == [0.5]
    state = scheduler.state_dict()
    scheduler.load_state_dict(state)
    state["base_lrs"][0] = 7.0
    assert scheduler.base_lrs == [0.5]


def test_an_existing_initial_lr_stays():
    optimizer = Groups(0.5)
    optimizer.param_groups[0]["initial_lr"] = 0.8
    scheduler = lr_scheduler.StepLR(optimizer, 1, 0.5)
    assert scheduler.base_lrs == [0.8]
    scheduler.step()
    assert optimizer.lrs() == [0.25]
    scheduler.step(1)
    assert optimizer.lrs() == [0.4]


@pytest.mark.parametrize("name", NAMES)
@hypothesis.settings(max_examples=8)
@hypothesis.given(data=st.data())
def test_a_saved_run_continues_bit_for_bit(name, data):
    settings, lrs = data.draw(SETTINGS[name]), data.draw(LRS)
    optimizer = Groups(*lrs)
    scheduler = make(name, optimizer, settings)
    for _ in range(data.draw(st.integers(0, 30))):
        scheduler.step()
    saved = pickle.loads(pickle.dumps(scheduler.state_dict()))
    groups = copy.deepcopy(optimizer.param_groups)

    restored = Groups(*lrs)
    loaded = make(name, restored, settings)
    loaded.load_state_dict(saved)
    restored.param_groups = groups
    assert loaded.get_last_lr() == scheduler.get_last_lr()
    for _ in range(20):
        scheduler.step()
        loaded.step()
        assert restored.lrs() == optimizer.lrs()
        assert loaded.get_last_lr() == scheduler.get_last_lr()


def test_attributes_of_a_subclass_are_part_of_the_state():
    class Noted(lr_scheduler.LRScheduler):
        def get_lr(self):
            self.notes = [*getattr(self, "notes", []), self.last_epoch]
            return self.base_lrs

    scheduler = Noted(Groups(0.1))
    scheduler.step()
    other = Noted(Groups(0.1))
    other.load_state_dict(scheduler.state_dict())
    assert other.notes == [0, 1]


@pytest.mark.parametrize("name", NAMES)
@hypothesis.settings(max_examples=5)
@hypothesis.given(data=st.data())
def test_a_group_added_later_changes_with_the_others(name, data):
    settings = data.draw(SETTINGS[name])
    optimizer, alone = Groups(0.3), Groups(0.3)
    scheduler, reference = make(name, optimizer, settings), make(name, alone, settings)
    for _ in range(3):
        scheduler.step()
        reference.step()
    optimizer.param_groups.append({"lr": optimizer.lrs()[0]})
    for _ in range(30):
        scheduler.step()
        reference.step()
        assert optimizer.lrs()[0] == alone.lrs()[0]
        # These three also use the initial_lr, which the new group has another of.
        if name not in ("CosineAnnealingLR", "CosineAnnealingWarmRestarts", "LambdaLR"):
            assert optimizer.lrs()[1] == optimizer.lrs()[0]
    assert len(scheduler.get_last_lr()) == 2
    expected = settings.get("base_lr", optimizer.param_groups[1]["initial_lr"])
    assert scheduler.base_lrs[1] == expected


def test_a_group_added_later_needs_its_own_entry_in_a_list():
    def grow(scheduler, step):
        groups = scheduler.optimizer.param_groups
        groups.append({"lr": 0.5})
        before = copy.deepcopy((groups, scheduler.state_dict()))
        with pytest.raises(ValueError, match="append it to scheduler"):
            step()
        assert (groups, scheduler.state_dict()) == before

    rates = [Rate(0.5), Rate(0.25)]
    scheduler = lr_scheduler.LambdaLR(Groups(1.0, 1.0), rates)
    grow(scheduler, scheduler.step)
    scheduler.lr_lambdas.append(rates[0])
    scheduler.step()
    assert scheduler.optimizer.param_groups[2]["lr"] == 0.25

    cyclic = lr_scheduler.CyclicLR(Groups(1.0, 1.0), 0.0, [0.1, 0.2], step_size_up=2)
    grow(cyclic, cyclic.step)
    cyclic.max_lrs.append(0.4)
    cyclic.step()
    assert cyclic.get_last_lr() == [0.05, 0.1, 0.2]

    plateau = lr_scheduler.ReduceLROnPlateau(Groups(1.0, 1.0), min_lr=[0.1, 0.2])
    grow(plateau, lambda: plateau.step(1.0))


@pytest.mark.parametrize("verbose", [False, "deprecated", True])
def test_verbose_prints_as_in_pytorch_up_to_2_6(capsys, verbose):
    optimizer = Groups(0.5, 0.25)
    lr_scheduler.StepLR(optimizer, 1, 0.5, -1, verbose).step()
    for name in NAMES:
        settings = {
            "StepLR": dict(step_size=1),
            "MultiStepLR": dict(milestones=[]),
            "ExponentialLR": dict(gamma=1.0),
            "CosineAnnealingLR": dict(T_max=1),
            "CosineAnnealingWarmRestarts": dict(T_0=1),
            "CyclicLR": dict(base_lr=0.1, max_lr=1),
            "LambdaLR": dict(lr_lambda=abs),
            "MultiplicativeLR": dict(lr_lambda=abs),
        }.get(name, {})
        scheduler = make(name, Groups(0.5), settings | {"verbose": verbose})
        assert not any("verbose" in key for key in scheduler.state_dict())
    lr_scheduler.OneCycleLR(Groups(0.5), 1, 9, cycle_momentum=False, verbose=verbose)
    sequence = [lr_scheduler.ConstantLR(optimizer)], []
    lr_scheduler.SequentialLR(optimizer, *sequence, -1, verbose).step()
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == (4 + len(NAMES) + 1 if verbose is True else 0)
    if verbose is True:
        assert printed[2:4] == [
            "Adjusting learning rate of group 0 to 2.5000e-01.",
            "Adjusting learning rate of group 1 to 1.2500e-01.",
        ]


def test_verbose_of_a_plateau_prints_reductions(capsys):
    optimizer = Groups(0.5, 0.0)
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, verbose=True)
    plateau.step(1.0)
    assert capsys.readouterr().out == ""
    plateau.step(2.0)
    printed = "Epoch 2: reducing learning rate of group 0 to 5.0000e-02.\n"
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("name", "settings", "counts"),
    [
        ("StepLR", {"step_size": 3}, ["step_size"]),
        ("MultiStepLR", {"milestones": [2, 5]}, ["milestones"]),
        ("ConstantLR", {"total_iters": 3}, ["total_iters"]),
        ("LinearLR", {"total_iters": 3}, ["total_iters"]),
        ("PolynomialLR", {"total_iters": 3}, ["total_iters"]),
        ("CosineAnnealingLR", {"T_max": 3}, ["T_max"]),
    ],
)
@pytest.mark.parametrize("number", [float, np.float64, np.int8])
def test_whole_floats_count_as_in_pytorch(name, settings, counts, number):
    def converted(value):
        return list(map(number, value)) if isinstance(value, list) else number(value)

    as_numbers = settings | {key: converted(settings[key]) for key in counts}
    optimizer, other = Groups(0.3), Groups(0.3)
    scheduler = make(name, optimizer, settings)
    same = make(name, other, as_numbers)
    for _ in range(9):
        scheduler.step()
        same.step()
        assert optimizer.lrs() == other.lrs()
    assert same.state_dict() == scheduler.state_dict()
