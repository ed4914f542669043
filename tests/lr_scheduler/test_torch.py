"""The classes against PyTorch's, run side by side.

Not compared, because the two differ on purpose (see the docstrings): ``total_iters=0``,
``factor=0``, nested `SequentialLR`, restarts that PyTorch misses, groups added later,
and the warnings. The momentum of `CyclicLR` and `OneCycleLR` are in test_one_cycle.py.
"""

import contextlib
import math
import warnings

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from adamax_optax import Adamax, lr_scheduler
from tests.lr_scheduler.scheduler_settings import (
    LRS,
    NAMES,
    PLATEAU,
    SETTINGS,
    STEPS,
    Groups,
    arguments,
    between,
    examples,
    make,
)

CLOSE = dict(rtol=1e-7, atol=1e-10)


@contextlib.contextmanager
def quiet():
    """Let PyTorch warn of an epoch that `step` is given, and of the order of steps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


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


@examples
@hypothesis.given(data=st.data())
def test_chained_scheduler_equals_torch(torch, data):
    lrs = data.draw(LRS)
    names = data.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4))
    ours, theirs = Groups(*lrs), torch_optimizer(torch, lrs)
    pairs = []
    for name in names:
        settings = data.draw(SETTINGS[name])
        pair = make(name, ours, settings), torch_make(torch, name, theirs, settings)
        pairs.append(pair)
    parts, torch_parts = (list(side) for side in zip(*pairs, strict=True))
    given = data.draw(st.booleans())
    scheduler = lr_scheduler.ChainedScheduler(parts, *[ours] * given)
    reference = torch.optim.lr_scheduler.ChainedScheduler(
        torch_parts, *[theirs] * given
    )
    theirs.step()
    for epoch in range(STEPS):
        if epoch == 40:
            # Their states change places.
            state = scheduler.state_dict()
            scheduler.load_state_dict(reference.state_dict())
            reference.load_state_dict(state)
        np.testing.assert_allclose(ours.lrs(), torch_lrs(theirs), **CLOSE)
        np.testing.assert_allclose(scheduler.get_last_lr(), ours.lrs(), **CLOSE)
        scheduler.step()
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
    # Entries that only PyTorch keeps are dropped.
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


@pytest.mark.parametrize("name", lr_scheduler.__all__)
def test_signature_equals_torch(torch, name):
    theirs = arguments(getattr(torch.optim.lr_scheduler, name).__init__)
    ours = arguments(getattr(lr_scheduler, name))
    if name == "CyclicLR":
        # MindSpore's order; PyTorch's stand before last_epoch, and cycle by default.
        momentum = [a for a in theirs if "momentum" in a[0]]
        theirs = [a for a in theirs if a not in momentum]
        *ours, cycle, base, top = ours
        assert [("cycle_momentum", True), base, top] == momentum
        assert cycle == ("cycle_momentum", False)
    if name != "ChainedScheduler":
        assert ours.pop() == ("verbose", False)
    assert ours == theirs


@pytest.mark.parametrize(
    "build",
    [
        lambda m, o: m.SequentialLR(
            o, [m.LinearLR(o, 0.1, 1.0, 3), m.ExponentialLR(o, 0.9)], [3]
        ),
        lambda m, o: m.OneCycleLR(o, 0.1, total_steps=50),
        lambda m, o: m.CyclicLR(o, 0.01, 0.1, 3, cycle_momentum=True),
    ],
)
@pytest.mark.parametrize("made_first", [False, True])
def test_loads_torch_before_or_after_the_scheduler_is_made(torch, build, made_first):
    parameter = torch.nn.Parameter(torch.zeros(1))
    theirs = torch.optim.Adamax([parameter], lr=0.1)
    reference = build(torch.optim.lr_scheduler, theirs)
    with quiet():
        for _ in range(5):
            reference.step()
    ours = Adamax([jnp.zeros(1)], lr=0.1)
    scheduler = build(lr_scheduler, ours) if made_first else None
    ours.load_state_dict(theirs.state_dict())
    scheduler = scheduler or build(lr_scheduler, ours)
    scheduler.load_state_dict(reference.state_dict())
    for _ in range(3):
        group, other = ours.param_groups[0], theirs.param_groups[0]
        np.testing.assert_allclose(group["lr"], other["lr"], **CLOSE)
        np.testing.assert_allclose(group["betas"], other["betas"], **CLOSE)
        scheduler.step()
        with quiet():
            reference.step()


def test_an_optimizer_loaded_last_keeps_what_plateau_did(torch):
    def build(module, optimizer):
        return [
            module.StepLR(optimizer, 100),
            module.ReduceLROnPlateau(optimizer, patience=0, factor=0.5),
        ]

    theirs = torch_optimizer(torch, [0.1])
    reference = build(torch.optim.lr_scheduler, theirs)
    theirs.step()
    for metric in (1.0, 2.0):
        reference[0].step()
        reference[1].step(metric)
    assert torch_lrs(theirs) == [0.05]
    ours = Adamax(jnp.zeros(1), lr=0.1)
    for scheduler, source in zip(build(lr_scheduler, ours), reference, strict=True):
        scheduler.load_state_dict(source.state_dict())
    ours.load_state_dict(theirs.state_dict())
    assert ours.param_groups[0]["lr"] == 0.05
