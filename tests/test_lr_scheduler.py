"""The scheduler classes: against PyTorch live, MindSpore's tables, and on their own.

Not compared with PyTorch, because the two differ on purpose (see the docstrings):
``total_iters=0``, ``factor=0``, nested `SequentialLR`, restarts that PyTorch misses,
groups added later, the warnings, and `CyclicLR` with ``cycle_momentum``.
"""

import contextlib
import copy
import functools
import inspect
import json
import math
import pathlib
import pickle
import warnings

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamax_optax import Adamax, lr_scheduler
from tests.scheduler_settings import LAMBDAS, PLATEAU, SETTINGS, Groups, between

RECORDED = json.loads(
    (pathlib.Path(__file__).parent / "data/mindspore/schedulers.json").read_text()
)
STEPS = 100
CLOSE = dict(rtol=1e-7, atol=1e-10)
LRS = st.lists(between(1e-4, 1), min_size=1, max_size=3)
NAMES = sorted(SETTINGS)
examples = hypothesis.settings(max_examples=12)


@contextlib.contextmanager
def quiet():
    """Let PyTorch warn of an epoch that `step` is given, and of the order of steps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def make(name, optimizer, settings):
    return getattr(lr_scheduler, name)(optimizer, **settings)


# --- PyTorch --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def torch_optimizer(torch, lrs):
    return torch.optim.SGD(
        [{"params": [torch.nn.Parameter(torch.zeros(()))], "lr": lr} for lr in lrs]
    )


def torch_make(torch, name, optimizer, settings):
    if name == "CyclicLR":
        settings = {**settings, "cycle_momentum": False}
    return getattr(torch.optim.lr_scheduler, name)(optimizer, **settings)


def torch_lrs(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize("name", NAMES)
@examples
@hypothesis.given(data=st.data())
def test_equals_torch(torch, name, data):
    settings, lrs = data.draw(SETTINGS[name]), data.draw(LRS)
    ours, theirs = Groups(*lrs), torch_optimizer(torch, lrs)
    scheduler = make(name, ours, settings)
    reference = torch_make(torch, name, theirs, settings)
    theirs.step()
    np.testing.assert_allclose(scheduler.base_lrs, reference.base_lrs, rtol=0)
    for epoch in range(STEPS):
        assert scheduler.last_epoch == reference.last_epoch == epoch
        assert scheduler.get_last_lr() == ours.lrs()
        np.testing.assert_allclose(ours.lrs(), torch_lrs(theirs), **CLOSE)
        scheduler.step()
        reference.step()


@pytest.mark.parametrize("name", NAMES)
@examples
@hypothesis.given(data=st.data())
def test_step_to_an_epoch_equals_torch(torch, name, data):
    settings, lrs = data.draw(SETTINGS[name]), data.draw(LRS)
    epochs = st.integers(0, 100)
    if name == "CosineAnnealingWarmRestarts":
        epochs |= st.integers(0, 400).map(lambda quarters: quarters / 4)
    ours, theirs = Groups(*lrs), torch_optimizer(torch, lrs)
    scheduler = make(name, ours, settings)
    reference = torch_make(torch, name, theirs, settings)
    theirs.step()
    for epoch in data.draw(st.lists(st.none() | epochs, min_size=1, max_size=30)):
        scheduler.step(epoch)
        with quiet():
            reference.step(epoch)
        assert scheduler.last_epoch == reference.last_epoch
        np.testing.assert_allclose(ours.lrs(), torch_lrs(theirs), **CLOSE)


@examples
@hypothesis.given(data=st.data())
def test_chained_equals_torch(torch, data):
    lrs = data.draw(LRS)
    names = data.draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=4))
    ours, theirs = Groups(*lrs), torch_optimizer(torch, lrs)
    pairs = []
    for name in names:
        settings = data.draw(SETTINGS[name])
        pair = make(name, ours, settings), torch_make(torch, name, theirs, settings)
        pairs.append(pair)
    theirs.step()
    by_hand = data.draw(st.dictionaries(st.integers(0, STEPS), between(0, 1)))
    for epoch in range(STEPS):
        np.testing.assert_allclose(ours.lrs(), torch_lrs(theirs), **CLOSE)
        if epoch in by_hand:
            ours.param_groups[0]["lr"] = theirs.param_groups[0]["lr"] = by_hand[epoch]
        for scheduler, reference in pairs:
            scheduler.step()
            reference.step()
            np.testing.assert_allclose(
                scheduler.get_last_lr(), reference.get_last_lr(), **CLOSE
            )


@examples
@hypothesis.given(data=st.data())
def test_sequential_equals_torch(torch, data):
    lrs = data.draw(LRS)
    names = data.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4))
    milestones = sorted(
        data.draw(
            st.lists(
                st.integers(0, 60),
                min_size=len(names) - 1,
                max_size=len(names) - 1,
                unique=True,
            )
        )
    )
    settings = [data.draw(SETTINGS[name]) for name in names]
    ours, theirs = Groups(*lrs), torch_optimizer(torch, lrs)
    scheduler = lr_scheduler.SequentialLR(
        ours,
        [
            make(name, ours, kwargs)
            for name, kwargs in zip(names, settings, strict=True)
        ],
        milestones,
    )
    reference = torch.optim.lr_scheduler.SequentialLR(
        theirs,
        [
            torch_make(torch, name, theirs, kwargs)
            for name, kwargs in zip(names, settings, strict=True)
        ],
        milestones,
    )
    theirs.step()
    for epoch in range(STEPS):
        assert scheduler.last_epoch == reference.last_epoch == epoch
        assert scheduler.get_last_lr() == ours.lrs()
        np.testing.assert_allclose(ours.lrs(), torch_lrs(theirs), **CLOSE)
        scheduler.step()
        with quiet():
            reference.step()


METRICS = st.lists(
    between(-2, 2) | st.sampled_from([math.nan, math.inf, -math.inf]),
    min_size=STEPS,
    max_size=STEPS,
)


@examples
@hypothesis.given(PLATEAU, LRS, METRICS)
def test_plateau_equals_torch(torch, settings, lrs, metrics):
    if "min_lr" in settings:
        settings = {**settings, "min_lr": [settings["min_lr"]] * len(lrs)}
    ours, theirs = Groups(*lrs), torch_optimizer(torch, lrs)
    scheduler = make("ReduceLROnPlateau", ours, settings)
    reference = torch_make(torch, "ReduceLROnPlateau", theirs, settings)
    for metric in metrics:
        scheduler.step(metric)
        reference.step(metric)
        np.testing.assert_allclose(ours.lrs(), torch_lrs(theirs), **CLOSE)
        assert scheduler.get_last_lr() == ours.lrs()
        assert scheduler.best == reference.best
        assert scheduler.num_bad_epochs == reference.num_bad_epochs
        assert scheduler.cooldown_counter == reference.cooldown_counter
        assert scheduler.in_cooldown() == reference.in_cooldown
        assert scheduler.last_epoch == reference.last_epoch


@examples
@hypothesis.given(data=st.data())
def test_plateau_beside_others_equals_torch(torch, data):
    lrs, metrics = data.draw(LRS), data.draw(METRICS)
    settings, plateau = data.draw(SETTINGS["CosineAnnealingLR"]), data.draw(PLATEAU)
    ours, theirs = Groups(*lrs), torch_optimizer(torch, lrs)
    cosine = make("CosineAnnealingLR", ours, settings)
    torch_cosine = torch_make(torch, "CosineAnnealingLR", theirs, settings)
    scheduler = make("ReduceLROnPlateau", ours, plateau)
    reference = torch_make(torch, "ReduceLROnPlateau", theirs, plateau)
    theirs.step()
    for metric in metrics:
        cosine.step()
        torch_cosine.step()
        scheduler.step(metric)
        reference.step(metric)
        np.testing.assert_allclose(ours.lrs(), torch_lrs(theirs), **CLOSE)


@pytest.mark.parametrize("name", NAMES)
@examples
@hypothesis.given(data=st.data())
def test_resuming_at_an_epoch_equals_torch(torch, name, data):
    settings, lrs = data.draw(SETTINGS[name]), data.draw(LRS)
    settings = {**settings, "last_epoch": data.draw(st.integers(0, 30))}
    # With another T_mult, PyTorch resumes in the wrong cycle.
    settings |= {"T_mult": 1} if "T_mult" in settings else {}
    ours, theirs = Groups(*lrs), torch_optimizer(torch, lrs)
    for optimizer in (ours, theirs):
        for group in optimizer.param_groups:
            group["initial_lr"] = 0.3
    scheduler = make(name, ours, settings)
    reference = torch_make(torch, name, theirs, settings)
    theirs.step()
    for _ in range(20):
        np.testing.assert_allclose(ours.lrs(), torch_lrs(theirs), **CLOSE)
        assert scheduler.last_epoch == reference.last_epoch
        scheduler.step()
        reference.step()


@pytest.mark.parametrize("name", NAMES)
@hypothesis.settings(max_examples=5)
@hypothesis.given(data=st.data())
def test_states_go_to_torch_and_come_back(torch, name, data):
    settings, lrs = data.draw(SETTINGS[name]), data.draw(LRS)
    theirs = torch_optimizer(torch, lrs)
    reference = torch_make(torch, name, theirs, settings)
    theirs.step()
    for _ in range(17):
        reference.step()

    ours = Groups(*lrs)
    scheduler = make(name, ours, settings)
    scheduler.load_state_dict(reference.state_dict())
    for group, lr in zip(ours.param_groups, torch_lrs(theirs), strict=True):
        group["lr"] = lr
    for _ in range(11):
        scheduler.step()
        reference.step()
        np.testing.assert_allclose(ours.lrs(), torch_lrs(theirs), **CLOSE)

    back = torch_optimizer(torch, lrs)
    returned = torch_make(torch, name, back, settings)
    back.step()
    returned.load_state_dict(scheduler.state_dict())
    for group, lr in zip(back.param_groups, ours.lrs(), strict=True):
        group["lr"] = lr
    for _ in range(11):
        returned.step()
        reference.step()
        np.testing.assert_allclose(torch_lrs(back), torch_lrs(theirs), **CLOSE)
    # What only PyTorch keeps does not stay behind.
    fresh = make(name, Groups(*lrs), settings)
    assert scheduler.state_dict().keys() == fresh.state_dict().keys()


def test_the_states_of_plateau_and_sequential_go_to_torch_and_come_back(torch):
    def build(module, optimizer):
        first = module.LinearLR(optimizer, total_iters=3)
        second = module.ExponentialLR(optimizer, gamma=0.9)
        sequential = module.SequentialLR(optimizer, [first, second], [4])
        return sequential, module.ReduceLROnPlateau(optimizer, patience=1, factor=0.5)

    def advance(schedulers, epochs):
        for epoch in epochs:
            schedulers[0].step()
            schedulers[1].step(math.sin(epoch))

    theirs = torch_optimizer(torch, [0.1])
    reference = build(torch.optim.lr_scheduler, theirs)
    theirs.step()
    with quiet():
        advance(reference, range(6))
    ours = Groups(*torch_lrs(theirs))
    schedulers = build(lr_scheduler, ours)
    for scheduler, source in zip(schedulers, reference, strict=True):
        scheduler.load_state_dict(source.state_dict())
    ours.param_groups[0]["lr"] = torch_lrs(theirs)[0]
    with quiet():
        advance(reference, range(6, 12))
    advance(schedulers, range(6, 12))
    np.testing.assert_allclose(ours.lrs(), torch_lrs(theirs), **CLOSE)
    for scheduler, target in zip(schedulers, reference, strict=True):
        target.load_state_dict(scheduler.state_dict())
    with quiet():
        advance(reference, range(12, 20))
    advance(schedulers, range(12, 20))
    np.testing.assert_allclose(ours.lrs(), torch_lrs(theirs), **CLOSE)


def test_drives_adamax_as_it_does_torch(torch):
    def build(module, optimizer):
        cosine = module.CosineAnnealingLR(optimizer, T_max=20, eta_min=1e-3)
        # Below eta_min the cosine would lead away from it, to negative rates.
        plateau = module.ReduceLROnPlateau(
            optimizer, patience=2, factor=0.5, min_lr=1e-3
        )
        return cosine, plateau

    start = np.array([1.0, -2.0, 0.5], np.float32)
    groups = [{"lr": 0.1}, {"lr": 0.02, "weight_decay": 0.1}]
    ours = Adamax([{**group, "params": jnp.asarray(start)} for group in groups])
    parameters = [torch.nn.Parameter(torch.tensor(start)) for _ in groups]
    theirs = torch.optim.Adamax(
        [{**group, "params": [p]} for group, p in zip(groups, parameters, strict=True)]
    )
    cosine, plateau = build(lr_scheduler, ours)
    torch_cosine, torch_plateau = build(torch.optim.lr_scheduler, theirs)
    for step in range(50):
        gradient = np.sin(step + np.arange(3, dtype=np.float32))
        ours([jnp.asarray(gradient)] * 2)
        for parameter in parameters:
            parameter.grad = torch.tensor(gradient)
        theirs.step()
        cosine.step()
        torch_cosine.step()
        plateau.step(math.cos(step))
        torch_plateau.step(math.cos(step))
        for value, parameter in zip(ours.parameters, parameters, strict=True):
            np.testing.assert_allclose(value, parameter.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        [group["lr"] for group in ours.param_groups], torch_lrs(theirs), **CLOSE
    )


def arguments(function):
    return [
        (parameter.name, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name != "self"
    ]


@pytest.mark.parametrize("name", lr_scheduler.__all__)
def test_signature_equals_torch(torch, name):
    theirs = arguments(getattr(torch.optim.lr_scheduler, name).__init__)
    if name == "CyclicLR":
        theirs = [a for a in theirs if "momentum" not in a[0]]
    assert arguments(getattr(lr_scheduler, name)) == theirs


# --- MindSpore ------------------------------------------------------------------------


def test_signatures_equal_mindspore():
    ours = {
        name: [
            [argument, "required" if default is inspect.Parameter.empty else default]
            for argument, default in arguments(getattr(lr_scheduler, name))
        ]
        for name in lr_scheduler.__all__
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


# --- Where neither library is the reference -------------------------------------------


def run(scheduler, steps):
    values = [scheduler.get_last_lr()[0]]
    for _ in range(steps):
        scheduler.step()
        values.append(scheduler.get_last_lr()[0])
    return values


def test_zero_iterations_are_over_at_once():
    assert run(lr_scheduler.ConstantLR(Groups(0.3), total_iters=0), 2) == [0.3] * 3
    linear = lr_scheduler.LinearLR(Groups(0.3), 0.1, 0.5, total_iters=0)
    assert run(linear, 2) == [0.15] * 3


def test_constant_factor_zero_is_restored():
    scheduler = lr_scheduler.ConstantLR(Groups(0.3), factor=0, total_iters=2)
    assert run(scheduler, 3) == [0.0, 0.0, 0.3, 0.3]


def test_a_learning_rate_set_after_the_end_stays():
    optimizer = Groups(0.3)
    scheduler = lr_scheduler.PolynomialLR(optimizer, total_iters=2)
    run(scheduler, 4)
    assert optimizer.lrs() == [0.0]
    optimizer.param_groups[0]["lr"] = 0.2
    assert run(scheduler, 2)[1:] == [0.2, 0.2]


def test_a_decay_goes_on_where_its_power_underflows():
    optimizer = Groups(0.3)
    scheduler = lr_scheduler.ExponentialLR(optimizer, gamma=0.1)
    scheduler.step(400)
    assert optimizer.lrs() == [0.0]
    optimizer.param_groups[0]["lr"] = 0.2
    np.testing.assert_allclose(run(scheduler, 2)[1:], [0.02, 0.002])


@pytest.mark.parametrize("T_mult", [1, 2, 3, 10])
def test_warm_restarts_hit_every_restart(T_mult):
    optimizer = Groups(1.0)
    scheduler = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3, T_mult)
    start = 0
    for cycle in range(7):
        scheduler.step(start)
        assert optimizer.lrs() == [1.0]
        assert scheduler.T_cur == 0
        assert scheduler.T_i == 3 * T_mult**cycle
        resumed = Groups(1.0)
        resumed.param_groups[0]["initial_lr"] = 1.0
        lr_scheduler.CosineAnnealingWarmRestarts(resumed, 3, T_mult, last_epoch=start)
        scheduler.step()
        np.testing.assert_allclose(resumed.lrs(), optimizer.lrs(), rtol=1e-12)
        start += 3 * T_mult**cycle


def test_nested_sequential_is_the_flat_one():
    def parts(optimizer):
        return [
            lr_scheduler.ConstantLR(optimizer, 0.5, 100),
            lr_scheduler.CosineAnnealingLR(optimizer, T_max=4),
            lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=2),
            lr_scheduler.ExponentialLR(optimizer, gamma=0.9),
        ]

    optimizer = Groups(1.0)
    expected = run(
        lr_scheduler.SequentialLR(optimizer, parts(optimizer), [3, 7, 10]), 14
    )

    def nest(optimizer, shape):
        a, b, c, d = parts(optimizer)

        def sequence(schedulers, milestones):
            return lr_scheduler.SequentialLR(optimizer, schedulers, milestones)

        if shape == "first":
            return sequence([sequence([a, b], [3]), c, d], [7, 10])
        if shape == "last":
            return sequence([a, b, sequence([c, d], [3])], [3, 7])
        return sequence([a, sequence([sequence([b, c], [4]), d], [7])], [3])

    for shape in ("first", "last", "twice"):
        scheduler = nest(Groups(1.0), shape)
        np.testing.assert_allclose(run(scheduler, 14), expected, rtol=1e-12)


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


def test_what_is_handed_out_is_a_copy():
    scheduler = lr_scheduler.StepLR(Groups(0.5), 2)
    scheduler.get_last_lr()[0] = 7.0
    scheduler.state_dict()["base_lrs"][0] = 7.0
    assert scheduler.get_last_lr() == scheduler.base_lrs == [0.5]
    state = scheduler.state_dict()
    scheduler.load_state_dict(state)
    state["base_lrs"][0] = 7.0
    assert scheduler.base_lrs == [0.5]


def test_an_initial_lr_that_is_there_stays():
    optimizer = Groups(0.5)
    optimizer.param_groups[0]["initial_lr"] = 0.8
    scheduler = lr_scheduler.StepLR(optimizer, 1, 0.5)
    assert scheduler.base_lrs == [0.8]
    scheduler.step()
    assert optimizer.lrs() == [0.25]
    scheduler.step(1)
    assert optimizer.lrs() == [0.4]


# --- State ----------------------------------------------------------------------------


class Rate:
    """A callable object: its attributes belong to the state."""

    def __init__(self, rate):
        self.rate = rate

    def __call__(self, t):
        return self.rate**t


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


def test_a_saved_sequence_with_a_plateau_continues_bit_for_bit():
    def build(optimizer):
        inner = lr_scheduler.SequentialLR(
            optimizer,
            [
                lr_scheduler.LambdaLR(optimizer, Rate(0.9)),
                lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3, 2),
            ],
            [4],
        )
        outer = lr_scheduler.SequentialLR(
            optimizer, [lr_scheduler.LinearLR(optimizer), inner], [3]
        )
        return outer, lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, cooldown=2)

    def advance(schedulers, steps):
        for step in steps:
            schedulers[0].step()
            schedulers[1].step(math.cos(step))

    for pause in (1, 5, 9):
        optimizer = Groups(0.1, 0.2)
        schedulers = build(optimizer)
        advance(schedulers, range(pause))
        states = pickle.dumps([scheduler.state_dict() for scheduler in schedulers])
        restored = Groups(0.1, 0.2)
        loaded = build(restored)
        for scheduler, state in zip(loaded, pickle.loads(states), strict=True):
            scheduler.load_state_dict(state)
        restored.param_groups = copy.deepcopy(optimizer.param_groups)
        advance(schedulers, range(pause, 25))
        advance(loaded, range(pause, 25))
        assert restored.lrs() == optimizer.lrs()


def test_callable_objects_are_saved_and_functions_are_not():
    fns = [Rate(0.5), lambda t: 0.5**t, math.exp, jax.jit(jnp.exp)]
    fns.append(functools.partial(pow, 0.5))
    scheduler = lr_scheduler.LambdaLR(Groups(*[1.0] * 5), fns)
    state = scheduler.state_dict()
    assert state["lr_lambdas"] == [{"rate": 0.5}, None, None, None, {}]
    state = pickle.loads(pickle.dumps(state))
    fns = [Rate(0.1), *fns[1:]]
    other = lr_scheduler.LambdaLR(Groups(*[1.0] * 5), fns)
    other.load_state_dict(state)
    assert other.lr_lambdas == fns
    assert fns[0].rate == 0.5

    cyclic = lr_scheduler.CyclicLR(Groups(1.0), 0.1, 0.2, scale_fn=Rate(0.5))
    state = pickle.loads(pickle.dumps(cyclic.state_dict()))
    assert state["_scale_fn_custom"] == {"rate": 0.5}
    rate = Rate(0.1)
    lr_scheduler.CyclicLR(Groups(1.0), 0.1, 0.2, scale_fn=rate).load_state_dict(state)
    assert rate.rate == 0.5


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


# --- Groups that come later -----------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@hypothesis.settings(max_examples=5)
@hypothesis.given(data=st.data())
def test_a_group_that_comes_later_changes_with_the_others(name, data):
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


def test_a_group_that_comes_later_starts_from_its_own_lr():
    optimizer = Groups(0.1)
    scheduler = lr_scheduler.LambdaLR(optimizer, Rate(0.5))
    optimizer.param_groups.append({"lr": 0.8})
    scheduler.step()
    assert optimizer.lrs() == [0.05, 0.4]
    optimizer.param_groups.append({"lr": 0.1, "initial_lr": 0.4})
    scheduler.step()
    assert optimizer.lrs() == [0.025, 0.2, 0.1]


def test_a_group_that_comes_later_in_a_sequence_and_at_a_plateau():
    optimizer = Groups(0.1)
    sequential = lr_scheduler.SequentialLR(
        optimizer,
        [
            lr_scheduler.ExponentialLR(optimizer, gamma=0.5),
            lr_scheduler.LambdaLR(optimizer, Rate(0.5)),
        ],
        [2],
    )
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, min_lr=0.01)
    optimizer.param_groups.append({"lr": 0.8})
    sequential.step()
    np.testing.assert_allclose(optimizer.lrs(), [0.05, 0.4])
    sequential.step()
    np.testing.assert_allclose(optimizer.lrs(), [0.1, 0.8])
    plateau.step(1.0)
    plateau.step(2.0)
    np.testing.assert_allclose(optimizer.lrs(), [0.01, 0.08])
    assert plateau.min_lrs == [0.01, 0.01]


def test_a_group_that_comes_later_needs_its_own_entry_in_a_list():
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


# --- Refusals -------------------------------------------------------------------------


def refuse(make, exception, match, optimizer):
    before = copy.deepcopy(optimizer.param_groups)
    with pytest.raises(exception, match=match):
        make(optimizer)
    assert optimizer.param_groups == before


REFUSED = [
    ("StepLR", dict(step_size=0), ValueError, "step_size must be an int >= 1, got 0"),
    ("StepLR", dict(step_size=2.0), TypeError, "step_size must be an int, got 2.0"),
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
    ("MultiStepLR", dict(milestones=[2, 4.0]), TypeError, r"milestones\[1\] must be"),
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
    ("CosineAnnealingLR", dict(T_max=2.5), TypeError, "T_max must be an int"),
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
        (parts, [], ValueError, r"one epoch less than schedulers has entries \(1\)"),
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
@pytest.mark.parametrize("name", lr_scheduler.__all__)
def test_what_is_not_an_optimizer_is_refused(name, optimizer):
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
        (step, two, r"\['base_lrs'\] must have 1 entries"),
        (fn, {**fn.state_dict(), "lr_lambdas": []}, r"\['lr_lambdas'\] must have 1 en"),
        (fn, {}, r"\['lr_lambdas'\] must have 1 entries"),
        (cyclic, {"cycle_momentum": True}, "cycle_momentum=False"),
        (cyclic, {}, "must be the saved state of a CyclicLR"),
        (sequential, {}, "must have 2 states"),
        (sequential, swapped, "saved state of a StepLR"),
        (sequential, mixed, "saved state of a ConstantLR"),
        (sequential, {"_schedulers": saved["_schedulers"]}, "state of a SequentialLR"),
    ]:
        before = copy.deepcopy((optimizer.param_groups, scheduler.state_dict()))
        with pytest.raises(ValueError, match=match):
            scheduler.load_state_dict(state)
        assert (optimizer.param_groups, scheduler.state_dict()) == before


def test_lambdas_are_called_with_python_numbers():
    seen = []

    def note(t):
        seen.append(t)
        return 1.0

    scheduler = lr_scheduler.LambdaLR(Groups(0.5), note)
    scheduler.step()
    scheduler.step(np.int32(7))
    assert seen == [0, 1, 7]
    assert {type(t) for t in seen} == {int}


@hypothesis.settings(max_examples=5)
@hypothesis.given(LAMBDAS)
def test_one_function_per_group(fn):
    scheduler = lr_scheduler.LambdaLR(Groups(0.5, 0.25), [fn, lambda t: 1.0])
    scheduler.step()
    assert scheduler.get_last_lr() == [0.5 * fn(1), 0.25]
