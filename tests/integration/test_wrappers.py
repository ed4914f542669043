"""Optax's wrappers around every form of the state: the numbers of the unwrapped run.

The noise of the reduced forms is a function of step, leaf and place, so that wrapped
and unwrapped runs round alike, and even their codes are equal. The hyperparameters are
powers of two and the like, exact in float32: traced they are the same numbers.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import adamax_optax as ao
from tests.running import FORMS, random_gradients, trajectory

pytestmark = [
    pytest.mark.usefixtures("lenient_promotion"),  # on which Optax's wrappers rely
    pytest.mark.parametrize("form", FORMS),
]

STEPS = 12
HYPER = dict(learning_rate=2**-4, b1=0.875, b2=1 - 2**-6, eps=2**-20)
DECAY = dict(HYPER, weight_decay=2**-5)
PARAMS = {
    "a": np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3),
    "b": np.linspace(2, 1, 5, dtype=np.float32),
}
# Multiples of 1/256, so that means of two are exact.
GRADIENTS = {
    name: (np.round(256 * random_gradients(p.shape, STEPS)) / 256).astype(np.float32)
    for name, p in PARAMS.items()
}
# XLA compiles every program on its own, and may or may not fuse a multiplication and
# an addition. A code that fell elsewhere would move a parameter by 1e-4 at least.
ONE_ROUNDING = dict(rtol=1e-6, atol=2e-7)


@functools.lru_cache  # so that `trajectory` knows it and compiles it once
def adamax(form, **hyper):
    return ao.adamax(**{**DECAY, **hyper}, state_dtype=form)


def plain(form, params=PARAMS, gradients=GRADIENTS, **hyper):
    """Return the parameters after each step of the unwrapped run."""
    return trajectory(adamax(form, **hyper), params, gradients)[0]


def assert_same(got, expected):
    chex.assert_trees_all_close(got, expected, **ONE_ROUNDING)


def at(tree, steps):
    return jax.tree.map(lambda x: x[steps], tree)


# --- Hyperparameters that are state ---------------------------------------------------


def injected(form, **kwargs):
    inject = optax.inject_hyperparams(ao.adamax, static_args="state_dtype", **kwargs)
    return inject(**DECAY, state_dtype=form)


def test_inject_hyperparams(form):
    got, state = trajectory(injected(form), PARAMS, GRADIENTS)
    assert_same(got, plain(form))
    assert set(state.hyperparams) == {*DECAY, "eps_outside"}
    chex.assert_trees_all_equal_shapes_and_dtypes(state, injected(form).init(PARAMS))


def test_injected_learning_rate_is_live(form):
    rates = np.linspace(0.5, 0.0, STEPS, dtype=np.float32)
    expected = plain(form, learning_rate=lambda count: jnp.asarray(rates)[count])
    tx, params = injected(form), jax.tree.map(jnp.asarray, PARAMS)
    state = first = tx.init(params)
    update_fn = jax.jit(chex.assert_max_traces(tx.update, n=1))
    for step, rate in enumerate(rates):
        state.hyperparams["learning_rate"] = jnp.asarray(rate)
        updates, state = update_fn(at(GRADIENTS, step), state, params)
        params = optax.apply_updates(params, updates)
        assert_same(params, at(expected, step))
    chex.assert_trees_all_equal_shapes_and_dtypes(state, first)
    chex.clear_trace_counter()


def test_injected_for_half_precision_parameters(form):
    params, gradients = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16), (PARAMS, GRADIENTS)
    )
    tx = injected(form, hyperparam_dtype=jnp.float32)
    got, state = trajectory(tx, params, gradients)
    chex.assert_trees_all_equal(got, plain(form, params, gradients))
    chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(params))


def test_injected_dtype_must_be_named(form):
    # A dtype such as jnp.uint16 is callable; its name is not.
    inject = optax.inject_hyperparams(ao.adamax)
    if form is not None:
        with pytest.raises(ValueError, match='static_args="state_dtype"'):
            inject(**DECAY, state_dtype=getattr(jnp, form)).init(PARAMS)
    got, _ = trajectory(inject(**DECAY, state_dtype=form), PARAMS, GRADIENTS)
    assert_same(got, plain(form))


SWEEP = {
    "learning_rate": [2**-4, 2**-3, 0.0],
    "b1": [0.0, 0.5, 0.875],
    "b2": [0.9375, 1 - 2**-6, 1 - 2**-10],
    "eps": [0.0, 2**-20, 0.25],
    "weight_decay": [0.0, 2**-5, 0.5],
    "eps_outside": [0.0, 2**-10, 0.25],
}


@pytest.mark.parametrize(
    "optimizer", [ao.adamax, pytest.param(ao.adamaxw, marks=pytest.mark.slow)]
)
def test_vmap_over_all_hyperparameters(optimizer, form):
    def run(hyper):
        return trajectory_fn(optimizer(**hyper, state_dtype=form))

    sweep = {name: jnp.asarray(values, float) for name, values in SWEEP.items()}
    swept = jax.jit(jax.vmap(run))(sweep)
    for i in range(3):
        hyper = {name: values[i] for name, values in SWEEP.items()}
        expected = jax.jit(functools.partial(run, hyper))()
        # Some coordinates swing about 0, which adds rounding to rounding.
        chex.assert_trees_all_close(at(swept, i), expected, rtol=1e-5, atol=2e-6)


def trajectory_fn(tx):
    """Return the parameters after each step; to be traced."""

    def step(carry, gradient):
        params, state = carry
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    params, gradients = jax.tree.map(jnp.asarray, (PARAMS, GRADIENTS))
    return jax.lax.scan(step, (params, tx.init(params)), gradients)[1]


# --- Steps that are put together, or left out -----------------------------------------


def test_multi_steps(form):
    tx = optax.MultiSteps(adamax(form), every_k_schedule=2)
    got, _ = trajectory(tx, PARAMS, GRADIENTS)
    means = jax.tree.map(lambda g: (g[::2] + g[1::2]) / 2, GRADIENTS)
    expected = plain(form, gradients=means)
    assert_same(at(got, slice(1, None, 2)), expected)
    # In between nothing moves.
    chex.assert_trees_all_equal(at(got, 0), PARAMS)
    chex.assert_trees_all_equal(
        at(got, slice(2, None, 2)), at(got, slice(1, STEPS - 1, 2))
    )


BAD = [3, 4, 9]
GOOD = [step for step in range(STEPS) if step not in BAD]


def with_bad_steps(value):
    """Return the gradients with one bad element in some steps."""
    b = GRADIENTS["b"].copy()
    b[BAD, 2] = value
    return {**GRADIENTS, "b": b}


def skip_not_finite(tx):
    return optax.MultiSteps(tx, 1, should_skip_update_fn=optax.skip_not_finite)


def skip_large_updates(tx):
    skip = functools.partial(optax.skip_large_updates, max_squared_norm=1e6)
    return optax.MultiSteps(tx, 1, should_skip_update_fn=skip)


@pytest.mark.parametrize(
    ("wrap", "value"),
    [
        (lambda tx: optax.apply_if_finite(tx, 5), np.nan),
        pytest.param(skip_not_finite, np.nan, marks=pytest.mark.slow),
        pytest.param(skip_not_finite, np.inf, marks=pytest.mark.slow),
        (skip_large_updates, 1e4),
    ],
    ids=["apply_if_finite-nan", "skip_not_finite-nan", "skip_not_finite-inf", "large"],
)
def test_bad_steps_are_left_out_as_if_they_had_not_been(form, wrap, value):
    got, _ = trajectory(wrap(adamax(form)), PARAMS, with_bad_steps(value))
    assert_same(at(got, GOOD), plain(form, gradients=at(GRADIENTS, GOOD)))
    before = [step - 1 for step in BAD]
    chex.assert_trees_all_equal(at(got, BAD), at(got, before))


# --- Parts of the tree ----------------------------------------------------------------


def test_masked(form):
    tx = optax.masked(adamax(form), {"a": True, "b": False})
    got, _ = trajectory(tx, PARAMS, GRADIENTS)
    expected = plain(form, {"a": PARAMS["a"]}, {"a": GRADIENTS["a"]})
    assert_same(got["a"], expected["a"])
    # What is masked out passes through: here, the gradient.
    np.testing.assert_allclose(
        got["b"], PARAMS["b"] + np.cumsum(GRADIENTS["b"], 0), rtol=1e-5
    )


def test_partition(form):
    other = dict(b1=0.5, learning_rate=2**-6)
    tx = optax.partition(
        {"x": adamax(form), "y": adamax(form, **other)}, {"a": "x", "b": "y"}
    )
    got, _ = trajectory(tx, PARAMS, GRADIENTS)
    for name, hyper in [("a", {}), ("b", other)]:
        # Under its name, since the noise depends on a leaf's path.
        own, gradients = {name: PARAMS[name]}, {name: GRADIENTS[name]}
        assert_same(got[name], plain(form, own, gradients, **hyper)[name])


def test_flatten(form):
    got, _ = trajectory(optax.flatten(adamax(form)), PARAMS, GRADIENTS)
    vector = np.concatenate([p.ravel() for p in PARAMS.values()])
    gradients = np.concatenate(
        [g.reshape(STEPS, -1) for g in GRADIENTS.values()], axis=1
    )
    expected = plain(form, vector, gradients)
    got = np.concatenate([got[name].reshape(STEPS, -1) for name in PARAMS], axis=1)
    assert_same(got, expected)


# --- Before and after -----------------------------------------------------------------


def test_chain_with_clipping(form):
    tx = optax.chain(optax.clip_by_global_norm(8.0), adamax(form))
    got, _ = trajectory(tx, PARAMS, GRADIENTS)
    flat = np.concatenate([g.reshape(STEPS, -1) for g in GRADIENTS.values()], axis=1)
    norms = np.linalg.norm(flat.astype(np.float64), axis=1)
    factors = np.minimum(1.0, 8.0 / norms)
    assert 0 < np.sum(factors < 1) < STEPS
    clipped = jax.tree.map(
        lambda g: (g * factors.reshape(-1, *[1] * (g.ndim - 1))).astype(np.float32),
        GRADIENTS,
    )
    assert_same(got, plain(form, gradients=clipped))


def steps_of(form):
    """Return the updates of the unwrapped run, which do not depend on parameters."""
    history = plain(form, weight_decay=0.0)
    return jax.tree.map(
        lambda h, p: np.diff(h.astype(np.float64), axis=0, prepend=p[None]),
        history,
        PARAMS,
    )


def test_chain_with_ema(form):
    tx = optax.chain(adamax(form, weight_decay=0.0), optax.ema(0.75, debias=False))
    got, _ = trajectory(tx, PARAMS, GRADIENTS)
    for name, steps in steps_of(form).items():
        mean, expected = 0.0, PARAMS[name].astype(np.float64)
        for step, history in zip(steps, got[name], strict=True):
            mean = 0.75 * mean + 0.25 * step
            expected = expected + mean
            np.testing.assert_allclose(history, expected, rtol=2e-6, atol=1e-6)


def test_reduce_on_plateau(form):
    # A loss that never falls: after each two steps without progress half the rate.
    tx = optax.chain(
        adamax(form, weight_decay=0.0),
        optax.contrib.reduce_on_plateau(factor=0.5, patience=2, cooldown=0),
    )
    with_value = optax.GradientTransformation(
        tx.init, functools.partial(tx.update, value=jnp.asarray(1.0))
    )
    got, state = trajectory(with_value, PARAMS, GRADIENTS)
    scales = 0.5 ** (np.arange(STEPS) // 2)
    plateau = optax.tree_utils.tree_get(state, "ReduceLROnPlateauState")
    assert plateau.scale == scales[-1]
    for name, steps in steps_of(form).items():
        scaled = steps * scales.reshape(-1, *[1] * (steps.ndim - 1))
        expected = PARAMS[name] + np.cumsum(scaled, axis=0)
        np.testing.assert_allclose(got[name], expected, rtol=2e-6, atol=1e-6)


def test_lookahead(form):
    tx = optax.lookahead(adamax(form), sync_period=3, slow_step_size=0.5)
    start = optax.LookaheadParams.init_synced(PARAMS)
    got, _ = trajectory(tx, start, GRADIENTS)

    inner = adamax(form)
    fast = slow = jax.tree.map(jnp.asarray, PARAMS)
    state, update_fn = inner.init(fast), jax.jit(inner.update)
    for step in range(STEPS):
        updates, state = update_fn(at(GRADIENTS, step), state, fast)
        fast = optax.apply_updates(fast, updates)
        if step % 3 == 2:
            slow = jax.tree.map(lambda s, f: s + 0.5 * (f - s), slow, fast)
            fast = slow
        assert_same(at(got, step), optax.LookaheadParams(fast, slow))


def test_schedule_free(form):
    # y is where gradients are taken, z what the optimizer moves, x their average.
    rate = DECAY["learning_rate"]
    inner = adamax(form, b1=0.0)
    tx = optax.contrib.schedule_free(inner, rate, b1=0.5)
    got, _ = trajectory(tx, PARAMS, GRADIENTS)

    y = z = x = jax.tree.map(jnp.asarray, PARAMS)
    state, update_fn = inner.init(y), jax.jit(inner.update)
    for step in range(STEPS):
        updates, state = update_fn(at(GRADIENTS, step), state, y)
        z = optax.apply_updates(z, updates)
        x = jax.tree.map(lambda x, z, t=step: x + (z - x) / (t + 1), x, z)
        y = jax.tree.map(lambda x, z: 0.5 * x + 0.5 * z, x, z)
        chex.assert_trees_all_close(at(got, step), y, rtol=2e-6, atol=1e-6)


# --- Derivatives through training -----------------------------------------------------

CURVATURE = np.array([1.0, 4.0, 0.5], np.float32)
START = np.array([1.0, -1.0, 2.0], np.float32)


def train(form, steps=10, optimizer=ao.adamax, **hyper):
    """Return the parameters before and after each step on a quadratic."""
    tx = optimizer(**hyper, state_dtype=form)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(CURVATURE * params, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    start = jnp.asarray(START)
    _, history = jax.lax.scan(step, (start, tx.init(start)), length=steps)
    return jnp.concatenate([start[None], history])


def loss_after(form, **hyper):
    return 0.5 * jnp.sum(CURVATURE * train(form, **hyper)[-1] ** 2)


def test_what_the_derivative_of_a_reduced_form_is(form):
    # m / u of every step is a constant: only what multiplies it counts.
    hyper = dict(HYPER, weight_decay=2**-5)
    derivative = jax.jit(jax.grad(lambda h: loss_after(form, **h)))(hyper)
    history = np.asarray(train(form, **hyper), np.float64)
    slope = CURVATURE * history[-1]
    steps = np.diff(history, axis=0)  # -γ r_t / (1 - β1^t)
    t, b1 = np.arange(1, 11)[:, None], hyper["b1"]
    direct = {
        "learning_rate": slope @ (steps / hyper["learning_rate"]).sum(0),
        "b1": slope @ (steps * t * b1 ** (t - 1) / (1 - b1**t)).sum(0),
        "b2": 0.0,
        "eps": 0.0,
        "weight_decay": 0.0,
    }
    if form is None:
        # The whole derivative, which test_adamax.py compares with differences.
        for name in ["learning_rate", "b1", "b2"]:
            assert abs(derivative[name] - direct[name]) > 1e-3, name
        return
    for name, expected in direct.items():
        np.testing.assert_allclose(
            derivative[name], expected, rtol=1e-4, atol=1e-7, err_msg=name
        )


def test_learning_rate_learned_by_gradient(form):
    # Descent on ln γ, from a rate that is a hundred times too small.
    @jax.jit
    def outer_step(log_rate):
        loss, slope = jax.value_and_grad(
            lambda x: loss_after(form, learning_rate=jnp.exp(x))
        )(log_rate)
        return log_rate - 0.5 * jnp.sign(slope), loss

    log_rate, losses = jnp.log(1e-3), []
    for _ in range(12):
        log_rate, loss = outer_step(log_rate)
        losses.append(float(loss))
    assert min(losses) < 0.05 * losses[0]
    assert 0.1 < np.exp(log_rate) < 0.5
