"""Codes follow from the state alone, whatever the betas do from step to step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamax_optax as ao

SIZE, BEFORE, AFTER = 4096, 60, 10
REDUCED = [jnp.bfloat16, jnp.float16, jnp.uint16]
# b1 < b2 and much nearer to it; b1 ≥ b2, where m / u has no bound; and larger b1.
CHANGES = [
    (0.9, 0.91),
    (0.9, 0.901),
    (0.9, 0.9),
    (0.9, 0.5),
    (0.95, 0.9),
    (0.5, 0.999),
    (0.99, 0.999),
    (0.0, 0.0),
    (0.9, 0.01),
]


def gradients(kind):
    """Return (steps, SIZE) gradients: of one sign, of both, or constant."""
    random = np.random.default_rng(0)
    noise = random.normal(size=(BEFORE + AFTER, SIZE))
    constant = np.broadcast_to(np.exp(random.normal(size=SIZE)), noise.shape)
    found = {"drift": noise + 0.3, "noise": noise, "constant": constant}
    return jnp.asarray(found[kind], jnp.float32)


def betas(change):
    """Return (steps, 2) betas that change after `BEFORE` steps."""
    rows = [(0.9, 0.999)] * BEFORE + [change] * AFTER
    return jnp.asarray(rows, jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def updates(state_dtype, gradients, betas):
    """Return the updates of each step, with b1 and b2 traced."""

    def step(state, row):
        gradient, (b1, b2) = row
        link = ao.scale_by_infinity_norm(b1, b2, state_dtype=state_dtype)
        update, state = link.update(gradient, state)
        return state, update

    link = ao.scale_by_infinity_norm(state_dtype=state_dtype)
    _, found = jax.lax.scan(step, link.init(gradients[0]), (gradients, betas))
    return found


def mean_steps(updates, kind):
    """Return the mean step after the change; of noise, whose mean is 0, its size."""
    after = np.asarray(updates[-AFTER:], np.float64)
    return (np.abs(after) if kind == "noise" else after).mean(axis=1)


@pytest.mark.parametrize("kind", ["drift", "noise", "constant"])
@pytest.mark.parametrize("change", CHANGES, ids=str)
@pytest.mark.parametrize("state_dtype", REDUCED, ids=lambda x: x.__name__)
def test_traced_betas_change(state_dtype, change, kind):
    g = gradients(kind)
    expected = mean_steps(updates(None, g, betas(change)), kind)
    found = mean_steps(updates(state_dtype, g, betas(change)), kind)
    np.testing.assert_allclose(found, expected, rtol=0.05)


@pytest.mark.parametrize("change", CHANGES, ids=str)
@pytest.mark.parametrize("state_dtype", REDUCED, ids=lambda x: x.__name__)
def test_betas_are_assigned(state_dtype, change):
    g = gradients("drift")

    def steps(state_dtype):
        group = {"params": jnp.zeros(SIZE), "state_dtype": state_dtype}
        optimizer = ao.Adamax([group], lr=1.0)
        places = [optimizer.parameters[0]]
        for t, gradient in enumerate(g):
            if t == BEFORE:
                optimizer.param_groups[0]["betas"] = change
            places += optimizer([gradient])
        return mean_steps(np.diff(np.stack(places), axis=0), "drift")

    np.testing.assert_allclose(steps(state_dtype), steps(None), rtol=0.05)


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("b1", [0.9, 0.999, 0.9999])
def test_injected_b1_may_reach_b2(b1):
    g = gradients("drift")

    def steps(state_dtype):
        tx = optax.inject_hyperparams(ao.adamax, static_args="state_dtype")(
            1.0, b1=jnp.float32(b1), b2=0.999, state_dtype=state_dtype
        )
        state, update = tx.init(g[0]), jax.jit(tx.update)
        found = []
        for gradient in g:
            step, state = update(gradient, state, gradient)
            found.append(step.mean())
        return np.array(found)

    np.testing.assert_allclose(steps(jnp.uint16), steps(None), rtol=0.05)


@pytest.mark.parametrize("form", [None, *REDUCED], ids=str)
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_cast_needs_no_betas(form, change):
    link = ao.scale_by_infinity_norm(*change, state_dtype=jnp.uint16)
    g = gradients("drift")
    state = link.init(g[0])
    for gradient in g[:5]:
        update, state = link.update(gradient, state)
    cast = ao.interop.cast_state(state, None)
    # The update is the stored ratio of what the state decodes to.
    np.testing.assert_allclose(cast.mu / cast.nu, update, rtol=1e-6)
    again = ao.interop.cast_state(ao.interop.cast_state(state, form), None)
    tolerance = {None: 0.0, jnp.bfloat16: 2**-7, jnp.float16: 2**-9, jnp.uint16: 2**-3}
    np.testing.assert_allclose(again.nu, cast.nu, rtol=2**-8)
    bound = np.abs(cast.mu / cast.nu).max()
    atol = 0.25 * 1.13 * bound * cast.nu if form == jnp.uint16 else 0.0
    difference = np.abs(again.mu - cast.mu)
    assert np.all(difference <= tolerance[form] * np.abs(cast.mu) + atol)


class TestLeafWithoutGradient:
    """A leaf whose gradient is `None` keeps its moments, in every form, bit for bit."""

    PARAMS = {"a": jnp.ones(64), "b": {"c": jnp.ones(32), "d": jnp.ones(())}}

    @staticmethod
    def some(kind):
        random = np.random.default_rng(1)
        tree = jax.tree.map(
            lambda p: jnp.asarray(random.normal(size=p.shape), jnp.float32),
            TestLeafWithoutGradient.PARAMS,
        )
        if kind == "leaf":
            tree["b"]["c"] = None
        if kind == "subtree":
            tree["b"] = None
        return tree

    @pytest.mark.parametrize("missing", ["leaf", "subtree"])
    @pytest.mark.parametrize("state_dtype", [None, *REDUCED], ids=str)
    def test_keeps_its_moments(self, state_dtype, missing):
        # So long that the scale of the others is multiplied by 4 on the way.
        link = ao.scale_by_infinity_norm(0.9, 0.9, state_dtype=state_dtype)
        state, update = link.init(self.PARAMS), jax.jit(link.update)
        for _ in range(3):
            _, state = update(self.some("none"), state)
        before = ao.interop.cast_state(state, None)
        for _ in range(20):
            larger = jax.tree.map(lambda g: 2 * g, self.some(missing))
            ratio, state = update(larger, state)
        after = ao.interop.cast_state(state, None)
        assert ratio["b"] is None or ratio["b"]["c"] is None
        for old, new in zip(before, after, strict=True):
            np.testing.assert_array_equal(old["b"]["c"], new["b"]["c"])
            assert not np.array_equal(old["a"], new["a"])
        if missing == "leaf":
            assert before.mu["b"]["d"] != after.mu["b"]["d"]

    @pytest.mark.parametrize("state_dtype", REDUCED, ids=lambda x: x.__name__)
    def test_steps_later_as_if_it_had_never_waited(self, state_dtype):
        link = ao.scale_by_infinity_norm(state_dtype=state_dtype)
        params = {"a": self.PARAMS["a"], "b": self.PARAMS["a"]}
        random = np.random.default_rng(2)
        rows = jnp.asarray(random.normal(size=(12, 64)), jnp.float32)
        state, waited = link.init(params), link.init(params)
        for row in rows:
            _, waited = link.update({"a": row, "b": None}, waited)
        for row in rows:
            _, state = link.update({"a": row, "b": row}, state)
            _, waited = link.update({"a": row, "b": row}, waited)
        here, there = (ao.interop.cast_state(x, None) for x in (state, waited))
        # u is rounded to nearest: it knows of no noise, and so is the same.
        np.testing.assert_array_equal(here.nu["b"], there.nu["b"])
        assert state.scale[1] == waited.scale[1]


class TestBound:
    """The bound that the word's state keeps for each leaf."""

    @pytest.mark.parametrize("change", CHANGES, ids=str)
    def test_no_stored_ratio_is_cut_off(self, change):
        g = gradients("constant")
        ratios = updates(jnp.uint16, g, betas(change))
        exact = updates(None, g, betas(change))
        # Of a ratio that reaches its bound only what the rounding of u makes of it:
        # each element's error is that of its own u.
        errors = np.asarray(ratios / exact)
        assert errors.max() > 1.08  # a cut would leave nothing above 1.01
        assert errors.mean() == pytest.approx(1.0, abs=0.01)

    def test_tends_to_its_limit_and_is_capped(self):
        link = ao.scale_by_infinity_norm(0.9, 0.999, state_dtype=jnp.uint16)
        state, update = link.init(jnp.ones(3)), jax.jit(link.update)
        assert state.bound.shape == (1,) and state.bound[0] == 0
        for _ in range(400):
            _, state = update(jnp.ones(3), state)
        limit = 0.1 / (1 - 0.9 / 0.999)
        assert state.bound[0] == pytest.approx(limit, rel=1e-5)
        link = ao.scale_by_infinity_norm(0.9, 0.5, state_dtype=jnp.uint16)
        for _ in range(20):
            _, state = link.update(jnp.ones(3), state)
        assert state.bound[0] == pytest.approx(1023.1)  # 1024 - b1

    @pytest.mark.parametrize("state_dtype", [jnp.bfloat16, jnp.float16])
    def test_two_arrays_need_none(self, state_dtype):
        assert (
            ao.scale_by_infinity_norm(state_dtype=state_dtype).init(1.0).bound is None
        )
