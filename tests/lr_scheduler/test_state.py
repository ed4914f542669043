"""Scheduler states saved in any format resume a run bit for bit."""

import collections
import copy
import json
import pickle
import weakref

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamax_optax import Adamax, lr_scheduler
from tests.lr_scheduler.scheduler_settings import (
    LRS,
    NAMES,
    ONE_CYCLE,
    PLATEAU,
    SETTINGS,
    Groups,
    Rate,
    between,
)

BETAS = (0.9, 0.999)


def is_number(leaf):
    return isinstance(leaf, int | float)


def through_flax(state):
    serialization = pytest.importorskip("flax.serialization")
    return serialization.msgpack_restore(serialization.to_bytes(state))


def through_msgpack(state):
    msgpack = pytest.importorskip("msgpack")
    return msgpack.unpackb(msgpack.packb(state))


def through_jax(state):
    jax.config.update("jax_enable_x64", True)
    try:
        return jax.tree.map(lambda x: jnp.asarray(x) if is_number(x) else x, state)
    finally:
        jax.config.update("jax_enable_x64", False)


ROUTES = {
    "itself": lambda state: state,
    "pickle": lambda state: pickle.loads(pickle.dumps(state)),
    "json": lambda state: json.loads(json.dumps(state)),
    "msgpack": through_msgpack,
    "flax": through_flax,
    "numpy": lambda state: jax.tree.map(np.asarray, state),
    "jax": through_jax,
    # As numpy.savez would have them.
    "arrays for lists": lambda state: jax.tree.map(
        lambda x: (
            np.asarray(x) if isinstance(x, list) and all(map(is_number, x)) else x
        ),
        state,
        is_leaf=lambda x: isinstance(x, list) and all(map(is_number, x)),
    ),
}

LEAVES = {
    **SETTINGS,
    "OneCycleLR": ONE_CYCLE.map(lambda settings: settings | {"total_steps": 99})
    .filter(lambda settings: settings.get("pct_start", 0.3) != 1 / 99)
    .flatmap(lambda s: between(0.01, 1).map(lambda lr: s | {"max_lr": lr})),
    "LambdaLR": SETTINGS["LambdaLR"]
    | st.builds(Rate, between(0.5, 1)).map(lambda rate: {"lr_lambda": rate}),
}
LEAVES["CyclicLR"] = st.builds(
    lambda settings, cycle: settings | {"cycle_momentum": cycle},
    SETTINGS["CyclicLR"],
    st.booleans(),
)


def composites(parts):
    chained = st.tuples(
        st.just("ChainedScheduler"), st.lists(parts, min_size=1, max_size=3)
    )
    sequential = st.lists(parts, min_size=1, max_size=3).flatmap(
        lambda chosen: st.tuples(
            st.just("SequentialLR"),
            st.just(chosen),
            st.lists(
                st.integers(0, 12), min_size=len(chosen) - 1, max_size=len(chosen) - 1
            ).map(sorted),
        )
    )
    return chained | sequential


LEAF = st.sampled_from(sorted(LEAVES)).flatmap(
    lambda name: st.tuples(st.just(name), LEAVES[name])
)
NESTED = st.recursive(LEAF, composites, max_leaves=5)


def build(recipe, optimizer):
    """Return the scheduler of a recipe: a name, and settings or parts of its kind."""
    name, rest, *milestones = recipe
    make = getattr(lr_scheduler, name)
    if isinstance(rest, dict):
        return make(optimizer, **copy.deepcopy(rest))
    parts = [build(part, optimizer) for part in rest]
    if milestones:
        return make(optimizer, parts, *milestones)
    return make(parts, optimizer)


def groups(lrs):
    optimizer = Groups(*lrs)
    for group in optimizer.param_groups:
        group["betas"] = BETAS
    return optimizer


def load(optimizer, saved):
    """Put saved groups in the place of those that are there, as Adamax does."""
    for group, entries in zip(optimizer.param_groups, saved, strict=True):
        group.clear()
        group.update(copy.deepcopy(entries))


def numbers(optimizer):
    return [(group["lr"], *group["betas"]) for group in optimizer.param_groups]


def check_goes_on(scheduler, loaded, step=lambda s: s.step(), steps=15):
    assert loaded.get_last_lr() == scheduler.get_last_lr()
    for _ in range(steps):
        step(scheduler)
        step(loaded)
        assert numbers(loaded.optimizer) == numbers(scheduler.optimizer)
        assert loaded.get_last_lr() == scheduler.get_last_lr()


def check_survives(recipe, lrs, route, steps, late, *, optimizer_first=False):
    """Save after some steps, a group having come, and go on with another scheduler.

    Args:
      recipe: For `build`.
      lrs: The learning rates of the groups.
      route: What the state goes through.
      steps: Steps before the save.
      late: After how many of them a group is added, or ``None``.
      optimizer_first: Whether the new optimizer is loaded before its scheduler is made.
    """
    optimizer = groups(lrs)
    scheduler = build(recipe, optimizer)
    for done in range(steps + 1):
        if done == late:
            optimizer.param_groups.append({"lr": 0.7, "betas": BETAS})
        if done < steps:
            scheduler.step()
    given = route(scheduler.state_dict())
    saved = copy.deepcopy(optimizer.param_groups)

    other = groups([0.5] * len(saved))
    if optimizer_first:
        load(other, saved)
    loaded = build(recipe, other)
    if not optimizer_first:
        load(other, saved)
    before = pickle.dumps(given)
    loaded.load_state_dict(given)
    if not optimizer_first:
        assert other.param_groups == saved
    assert numbers(other) == numbers(optimizer)
    check_goes_on(scheduler, loaded)
    # The caller's dict is as it was.
    assert pickle.dumps(given) == before


@pytest.mark.parametrize("route", sorted(ROUTES))
@pytest.mark.parametrize("name", sorted(LEAVES))
@hypothesis.settings(max_examples=5)
@hypothesis.given(data=st.data())
def test_a_state_survives(name, route, data):
    recipe = name, data.draw(LEAVES[name])
    steps = data.draw(st.integers(0, 25))
    late = data.draw(st.none() | st.integers(0, steps))
    check_survives(recipe, data.draw(LRS), ROUTES[route], steps, late)


@pytest.mark.parametrize("route", sorted(ROUTES))
@hypothesis.settings(max_examples=25)
@hypothesis.given(data=st.data())
def test_the_state_of_a_composite_survives(route, data):
    recipe = data.draw(composites(NESTED))
    steps = data.draw(st.integers(0, 25))
    late = data.draw(st.none() | st.integers(0, steps))
    check_survives(recipe, data.draw(LRS), ROUTES[route], steps, late)


@hypothesis.settings(max_examples=100)
@hypothesis.given(data=st.data())
def test_a_state_mends_what_a_constructor_did_to_a_loaded_optimizer(data):
    recipe = data.draw(NESTED)
    steps = data.draw(st.integers(0, 25))
    late = data.draw(st.none() | st.integers(0, steps))
    if "OneCycleLR" in repr(recipe):
        late = None  # its constructor changes what the others take for initial_lr
    check_survives(
        recipe, data.draw(LRS), ROUTES["json"], steps, late, optimizer_first=True
    )


@pytest.mark.parametrize("route", sorted(ROUTES))
@hypothesis.settings(max_examples=10)
@hypothesis.given(data=st.data())
def test_the_state_of_a_plateau_survives(route, data):
    settings, lrs = data.draw(PLATEAU), data.draw(LRS)
    metrics = data.draw(st.lists(between(-2, 2), min_size=40, max_size=40))
    late = data.draw(st.integers(0, 20))
    optimizer = groups(lrs)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, **settings)
    for done, metric in enumerate(metrics[:20]):
        if done == late:
            optimizer.param_groups.append({"lr": 0.7, "betas": BETAS})
        scheduler.step(metric)
    other = copy.deepcopy(optimizer)
    loaded = lr_scheduler.ReduceLROnPlateau(other, **settings)
    loaded.load_state_dict(ROUTES[route](scheduler.state_dict()))
    feeds = {id(scheduler): iter(metrics[20:]), id(loaded): iter(metrics[20:])}
    check_goes_on(scheduler, loaded, lambda s: s.step(next(feeds[id(s)])))
    assert loaded.state_dict() == scheduler.state_dict()


def one_of_each():
    recipes = [
        ("StepLR", {"step_size": 2}),
        ("MultiStepLR", {"milestones": [4, 2, 4, 9]}),
        ("MultiStepLR", {"milestones": []}),
        ("ExponentialLR", {"gamma": 0.9}),
        ("ConstantLR", {}),
        ("LinearLR", {}),
        ("PolynomialLR", {"power": 0.5}),
        ("CosineAnnealingLR", {"T_max": 3.5}),
        ("CosineAnnealingWarmRestarts", {"T_0": 2, "T_mult": 2}),
        ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.4, "cycle_momentum": True}),
        ("OneCycleLR", {"max_lr": 0.4, "total_steps": 40, "three_phase": True}),
        ("LambdaLR", {"lr_lambda": Rate(0.9)}),
        ("MultiplicativeLR", {"lr_lambda": lambda t: 0.9}),
    ]
    return [
        *recipes,
        ("SequentialLR", recipes[:3], [2, 6]),
        ("ChainedScheduler", [recipes[1], ("SequentialLR", recipes[-2:], [3])]),
    ]


def test_states_survive_orbax(tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    schedulers = [build(recipe, groups([0.1, 0.3])) for recipe in one_of_each()]
    for scheduler in schedulers:
        for step in range(7):
            if step == 4:
                scheduler.optimizer.param_groups.append({"lr": 0.7, "betas": BETAS})
            scheduler.step()
    states = {str(i): s.state_dict() for i, s in enumerate(schedulers)}
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "states", states)
        restored = checkpointer.restore(tmp_path / "states")
    for i, (recipe, scheduler) in enumerate(
        zip(one_of_each(), schedulers, strict=True)
    ):
        other = groups([0.5] * 3)
        loaded = build(recipe, other)
        load(other, scheduler.optimizer.param_groups)
        loaded.load_state_dict(restored[str(i)])
        check_goes_on(scheduler, loaded)


def test_float32_arrays_go_on_from_the_values_that_they_hold():
    for recipe in one_of_each():
        scheduler = build(recipe, groups([0.1, 0.3]))
        for _ in range(7):
            scheduler.step()
        state = scheduler.state_dict()
        rounded = jax.tree.map(
            lambda x: float(np.float32(x)) if isinstance(x, float) else x, state
        )
        arrays = jax.tree.map(lambda x: jnp.asarray(x) if is_number(x) else x, state)
        first, second = (build(recipe, groups([0.1, 0.3])) for _ in range(2))
        first.load_state_dict(rounded)
        second.load_state_dict(arrays)
        assert second.state_dict() == first.state_dict()
        check_goes_on(first, second)


def test_every_class_is_in_these_tests():
    tested = {*LEAVES, "SequentialLR", "ChainedScheduler", "ReduceLROnPlateau"}
    assert tested | {"LRScheduler"} == set(lr_scheduler.__all__)
    assert {*NAMES, "OneCycleLR"} == set(LEAVES)


def test_a_state_does_not_follow_its_scheduler():
    for recipe in one_of_each():
        scheduler = build(recipe, groups([0.1, 0.3]))
        scheduler.step()
        state = scheduler.state_dict()
        before = copy.deepcopy(state)
        for _ in range(6):
            scheduler.step()
        assert state == before
        state["_last_lr"][0] = 7.0
        assert scheduler.get_last_lr()[0] != 7.0


def test_attributes_of_a_subclass_keep_their_kind():
    class Kept(lr_scheduler.LRScheduler):
        def __init__(self, optimizer):
            self.pair = (1, 2.5)
            self.weights = np.arange(3.0)
            self.table = {"a": [np.arange(2)]}
            self.counts = collections.Counter("aab")
            self.names = {"x"}
            super().__init__(optimizer)

        def get_lr(self):
            return self._last_lr

    scheduler, other = Kept(Groups(0.1)), Kept(Groups(0.1))
    state = scheduler.state_dict()
    scheduler.weights += 1
    other.load_state_dict(state)
    assert (other.pair, other.names) == ((1, 2.5), {"x"})
    np.testing.assert_array_equal(other.weights, [0, 1, 2])
    assert other.counts == collections.Counter("aab")
    np.testing.assert_array_equal(other.table["a"][0], [0, 1])
    other.weights += 1
    np.testing.assert_array_equal(state["weights"], [0, 1, 2])


# --- Made after the optimizer was loaded ----------------------------------------------


def made_too_late(build):
    """Return the learning rate of a run, and a new optimizer that was loaded first."""
    optimizer = Adamax(jnp.zeros(3), lr=0.1)
    schedulers = build(optimizer)
    for _ in range(3):
        optimizer(jnp.ones(3))
        for scheduler in schedulers:
            scheduler.step()
    states = [scheduler.state_dict() for scheduler in schedulers]
    other = Adamax(jnp.zeros(3), lr=0.1)
    other.load_state_dict(optimizer.state_dict())
    return optimizer, other, states


def several(optimizer):
    return [
        lr_scheduler.LinearLR(optimizer, total_iters=9),
        lr_scheduler.ConstantLR(optimizer, 0.5, 9),
        lr_scheduler.ExponentialLR(optimizer, 0.9),
    ]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_several_schedulers_mend_in_any_order(order):
    optimizer, other, states = made_too_late(several)
    optimizer.param_groups[0]["lr"] *= 0.7  # before the optimizer was saved, too
    states = [{**s, "_group_lrs": [optimizer.param_groups[0]["lr"]]} for s in states]
    schedulers = several(other)
    assert other.param_groups[0]["lr"] != optimizer.param_groups[0]["lr"]
    for i in order:
        schedulers[i].load_state_dict(states[i])
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


def test_a_learning_rate_that_was_set_since_stays():
    _, other, states = made_too_late(several)
    schedulers = several(other)
    other.param_groups[0]["lr"] = 0.03
    for scheduler, state in zip(schedulers, states, strict=True):
        scheduler.load_state_dict(state)
    assert other.param_groups[0]["lr"] == 0.03


def test_a_state_of_pytorch_mends_too():
    optimizer, other, states = made_too_late(lambda o: [lr_scheduler.LinearLR(o)])
    state = {k: v for k, v in states[0].items() if k != "_group_lrs"}
    lr_scheduler.LinearLR(other).load_state_dict(state)
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


def test_a_scheduler_does_not_keep_parameters_alive():
    params = jnp.zeros(3)
    alive = weakref.ref(params)
    optimizer = Adamax(params, lr=0.1)
    schedulers = several(optimizer)
    schedulers.append(lr_scheduler.SequentialLR(optimizer, schedulers[:1], []))
    del params
    for _ in range(2):
        optimizer(jnp.ones(3))
    assert alive() is None


def test_a_rate_that_was_loaded_counts_as_set():
    optimizer = Adamax(jnp.ones(2), lr=0.1)
    scheduler = lr_scheduler.StepLR(optimizer, 1, 0.5)
    first = optimizer.state_dict()
    for _ in range(3):
        scheduler.step()
    optimizer.load_state_dict(first)
    scheduler.load_state_dict(scheduler.state_dict() | {"_group_lrs": [0.7]})
    assert optimizer.param_groups[0]["lr"] == 0.1
