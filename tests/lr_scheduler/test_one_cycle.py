"""OneCycleLR and the momentum of CyclicLR, beside PyTorch's."""

import copy
import json

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from adamax_optax import Adamax, lr_scheduler
from tests.lr_scheduler.scheduler_settings import (
    ONE_CYCLE,
    SETTINGS,
    STEPS,
    Groups,
    between,
    examples,
    make,
    run,
)
from tests.lr_scheduler.test_torch import quiet

CLOSE = dict(rtol=1e-9, atol=1e-15)
BETAS = (0.9, 0.999)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def optimizers(torch, groups):
    ours = Groups(*[0.3] * groups)
    for group in ours.param_groups:
        group["betas"] = BETAS
    parameters = [{"params": [torch.zeros((), requires_grad=True)]} for _ in ours.lrs()]
    return ours, torch.optim.Adamax(parameters, lr=0.3, betas=BETAS)


def check_equal(ours, theirs):
    for group, other in zip(ours.param_groups, theirs.param_groups, strict=True):
        np.testing.assert_allclose(group["lr"], other["lr"], **CLOSE)
        np.testing.assert_allclose(group["betas"], other["betas"], **CLOSE)
        rest = group.keys() - {"lr", "betas"}
        assert {key: group[key] for key in rest} == {key: other[key] for key in rest}


@st.composite
def one_cycle(draw, groups):
    def one_or_each(numbers):
        return draw(numbers | st.lists(numbers, min_size=groups, max_size=groups))

    settings = draw(ONE_CYCLE) | {"max_lr": one_or_each(between(1e-3, 1))}
    if draw(st.booleans()):
        settings["base_momentum"] = one_or_each(between(0.5, 0.9))
        settings["max_momentum"] = one_or_each(between(0.9, 0.99))
    return settings | {"cycle_momentum": draw(st.booleans())}


@hypothesis.settings(max_examples=200)
@hypothesis.given(data=st.data())
def test_one_cycle_equals_torch(torch, data):
    groups = data.draw(st.integers(1, 3))
    settings = data.draw(one_cycle(groups))
    ours, theirs = optimizers(torch, groups)
    scheduler = make("OneCycleLR", ours, settings)
    reference = torch.optim.lr_scheduler.OneCycleLR(theirs, **settings)
    theirs.step()
    for step in range(settings["total_steps"]):
        check_equal(ours, theirs)
        assert scheduler.last_epoch == reference.last_epoch == step
        assert scheduler.get_last_lr() == ours.lrs()
        scheduler.step()
        reference.step()
    if settings.get("anneal_strategy") != "linear":
        check_equal(ours, theirs)
    before = copy.deepcopy((ours.param_groups, scheduler.state_dict()))
    with pytest.raises(ValueError, match="Tried to step"):
        reference.step()
    with pytest.raises(ValueError, match=r"OneCycleLR has .* make it with more"):
        scheduler.step()
    assert (ours.param_groups, scheduler.state_dict()) == before


@examples
@hypothesis.given(data=st.data())
def test_one_cycle_resumes_and_is_saved_as_in_torch(torch, data):
    groups = data.draw(st.integers(1, 3))
    settings = data.draw(one_cycle(groups))
    ours, theirs = optimizers(torch, groups)
    scheduler = make("OneCycleLR", ours, settings)
    reference = torch.optim.lr_scheduler.OneCycleLR(theirs, **settings)
    theirs.step()
    for _ in range(settings["total_steps"] // 3):
        scheduler.step()
        reference.step()
    theirs_state, ours_state = reference.state_dict(), scheduler.state_dict()
    extra = {"_group_lrs", "_group_beta1s"}
    for key in ours_state.keys() - extra - {"base_lrs", "_last_lr"}:
        assert ours_state[key] == theirs_state[key], key
    # The two change places.
    crossed = make("OneCycleLR", ours, settings)
    crossed.load_state_dict(theirs_state)
    theirs_crossed = torch.optim.lr_scheduler.OneCycleLR(theirs, **settings)
    theirs_crossed.load_state_dict(ours_state)
    # And both resume by themselves, from what the groups hold.
    resume = settings | {"last_epoch": scheduler.last_epoch}
    alone = make("OneCycleLR", copy.deepcopy(ours), resume)
    torch_alone = torch.optim.lr_scheduler.OneCycleLR(copy.deepcopy(theirs), **resume)
    check_equal(alone.optimizer, torch_alone.optimizer)
    for _ in range(settings["total_steps"] - settings["total_steps"] // 3 - 1):
        crossed.step()
        theirs_crossed.step()
        check_equal(ours, theirs)


def test_epochs_and_steps_per_epoch():
    both = lr_scheduler.OneCycleLR(
        Groups(0.1), 0.5, epochs=3, steps_per_epoch=np.int64(4), cycle_momentum=False
    )
    assert both.total_steps == 12
    total = lr_scheduler.OneCycleLR(
        Groups(0.1), 0.5, 12, epochs=7, steps_per_epoch=7, cycle_momentum=False
    )
    assert run(both, 12) == run(total, 12)


@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_a_phase_without_length_is_at_its_end(strategy):
    # PyTorch divides by 0.
    scheduler = lr_scheduler.OneCycleLR(
        Groups(0.1),
        0.5,
        10,
        pct_start=0.1,
        anneal_strategy=strategy,
        cycle_momentum=False,
    )
    values = run(scheduler, 9)
    assert values[0] == 0.5
    np.testing.assert_allclose(values[9], 0.5 / 25e4)
    # The last step but one of the third phase is as long as it is.
    scheduler = lr_scheduler.OneCycleLR(
        Groups(0.1),
        0.5,
        10,
        pct_start=0.55,
        anneal_strategy=strategy,
        three_phase=True,
        cycle_momentum=False,
    )
    np.testing.assert_allclose(run(scheduler, 10)[10], 0.5 / 25e4)


def test_the_line_stays_in_its_range_one_step_after_the_last():
    optimizer = Adamax(jnp.zeros(3))
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.5, 4, anneal_strategy="linear")
    run(scheduler, 4)
    np.testing.assert_allclose(optimizer.param_groups[0]["lr"], 0.5 / 25e4)
    np.testing.assert_allclose(optimizer.param_groups[0]["betas"], (0.95, 0.999))
    optimizer(jnp.ones(3))


def test_a_group_added_later_takes_the_entries_of_the_others():
    optimizer = Groups(0.1, 0.1)
    for group in optimizer.param_groups:
        group["betas"] = BETAS
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.5, 20)
    scheduler.step()
    optimizer.param_groups.append({"lr": 0.1, "betas": BETAS})
    for _ in range(10):
        scheduler.step()
        first, _, last = optimizer.param_groups
        assert last == first
    optimizer.param_groups[1]["max_lr"] = 0.4
    optimizer.param_groups.append({"lr": 0.1, "betas": BETAS})
    before = copy.deepcopy((optimizer.param_groups, scheduler.state_dict()))
    with pytest.raises(KeyError, match=r"param_groups\[3\] has no 'max_lr'.*set it in"):
        scheduler.step()
    assert (optimizer.param_groups, scheduler.state_dict()) == before
    optimizer.param_groups[3]["max_lr"] = 0.3
    scheduler.step()
    lrs = optimizer.lrs()
    assert lrs[3] < lrs[1] < lrs[0]


def test_it_resumes_only_with_the_entries():
    optimizer = Groups(0.1)
    optimizer.param_groups[0]["initial_lr"] = 0.1
    with pytest.raises(KeyError, match="no 'max_lr', which OneCycleLR needs: load"):
        lr_scheduler.OneCycleLR(optimizer, 0.5, 20, last_epoch=3)


@pytest.mark.parametrize("name", ["OneCycleLR", "CyclicLR"])
def test_momentum_needs_betas(name):
    settings = {"max_lr": 0.5, "cycle_momentum": True}
    settings |= {"total_steps": 9} if name == "OneCycleLR" else {"base_lr": 0.1}
    optimizer = Groups(0.1)
    before = copy.deepcopy(optimizer.param_groups)
    with pytest.raises(ValueError, match="no 'betas': pass cycle_momentum=False"):
        make(name, optimizer, settings)
    assert optimizer.param_groups == before


def test_it_drives_adamax_as_it_does_torch(torch):
    start = np.array([1.0, -2.0, 0.5], np.float32)
    ours = Adamax(jnp.asarray(start))
    parameter = torch.nn.Parameter(torch.tensor(start))
    theirs = torch.optim.Adamax([parameter])
    scheduler = lr_scheduler.OneCycleLR(ours, 0.1, total_steps=40)
    reference = torch.optim.lr_scheduler.OneCycleLR(theirs, 0.1, total_steps=40)
    for step in range(40):
        gradient = np.sin(step + np.arange(3, dtype=np.float32))
        params = ours(jnp.asarray(gradient))
        parameter.grad = torch.tensor(gradient)
        theirs.step()
        scheduler.step()
        reference.step()
        np.testing.assert_allclose(params, parameter.detach(), rtol=1e-5, atol=1e-6)


# --- The momentum of CyclicLR ---------------------------------------------------------

CYCLIC = SETTINGS["CyclicLR"].flatmap(
    lambda settings: (
        st.fixed_dictionaries(
            {},
            optional={
                "base_momentum": between(0.5, 0.9),
                "max_momentum": between(0.6, 1),
            },
        )
        .filter(lambda momentum: momentum.get("max_momentum") != 1)
        .map(lambda momentum: settings | momentum | {"cycle_momentum": True})
    )
)


@examples
@hypothesis.given(CYCLIC)
def test_the_momentum_of_cyclic_equals_torch(torch, settings):
    ours, theirs = optimizers(torch, 2)
    scheduler = make("CyclicLR", ours, settings)
    reference = torch.optim.lr_scheduler.CyclicLR(theirs, **settings)
    theirs.step()
    for _ in range(STEPS):
        for group, other in zip(ours.param_groups, theirs.param_groups, strict=True):
            # PyTorch's phase is off by the rounding of 1 + t / size.
            for key in group:
                np.testing.assert_allclose(group[key], other[key], rtol=0, atol=1e-11)
        scheduler.step()
        reference.step()
    crossed = make("CyclicLR", copy.deepcopy(ours), settings)
    crossed.load_state_dict(reference.state_dict())
    reference.load_state_dict(scheduler.state_dict())
    for _ in range(9):
        scheduler.step()
        crossed.step()
        reference.step()
        assert crossed.optimizer.param_groups == ours.param_groups
        np.testing.assert_allclose(
            [group["betas"] for group in ours.param_groups],
            [group["betas"] for group in theirs.param_groups],
            rtol=0,
            atol=1e-11,
        )


def test_a_state_of_torch_decides_whether_the_momentum_cycles(torch):
    for cycles in (True, False):
        ours, theirs = optimizers(torch, 1)
        settings = dict(base_lr=0.1, max_lr=0.3, step_size_up=5)
        reference = torch.optim.lr_scheduler.CyclicLR(
            theirs, **settings, cycle_momentum=cycles
        )
        theirs.step()
        scheduler = make("CyclicLR", ours, settings | {"cycle_momentum": not cycles})
        scheduler.load_state_dict(reference.state_dict())
        ours.param_groups[0]["betas"] = theirs.param_groups[0]["betas"]
        for _ in range(7):
            with quiet():
                reference.step()
            scheduler.step()
            np.testing.assert_allclose(
                ours.param_groups[0]["betas"], theirs.param_groups[0]["betas"]
            )


def test_a_late_group_of_cyclic_follows_the_advice():
    optimizer = Groups(1.0, 1.0)
    for group in optimizer.param_groups:
        group["betas"] = BETAS
    scheduler = lr_scheduler.CyclicLR(
        optimizer,
        [0.1, 0.2],
        [0.3, 0.4],
        step_size_up=2,
        cycle_momentum=True,
        base_momentum=[0.5, 0.6],
        max_momentum=[0.7, 0.8],
    )
    optimizer.param_groups.append({"lr": 1.0, "betas": BETAS})
    for name, value in [
        ("base_lrs", 0.4),
        ("max_lrs", 0.6),
        ("base_momentums", 0.1),
        ("max_momentums", 0.3),
    ]:
        before = copy.deepcopy((optimizer.param_groups, scheduler.state_dict()))
        with pytest.raises(ValueError, match=f"append it to scheduler.{name}; got"):
            scheduler.step()
        assert (optimizer.param_groups, scheduler.state_dict()) == before
        getattr(scheduler, name).append(value)
    scheduler.step()
    np.testing.assert_allclose(optimizer.lrs(), [0.2, 0.3, 0.5])
    np.testing.assert_allclose(optimizer.param_groups[2]["betas"], (0.2, 0.999))
    scheduler.load_state_dict(json.loads(json.dumps(scheduler.state_dict())))
    scheduler.step()
    np.testing.assert_allclose(optimizer.lrs(), [0.3, 0.4, 0.6])
