"""Rows without gradient stay as they are, and the others step.

`tests/numbers/test_rules.py` compares the numbers with those of TensorFlow.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import adamax_optax as ao
from adamax_optax.interop import cast_state, from_keras, to_keras
from tests.integration.test_eight_devices import COLLECTIVES
from tests.running import FORMS, trajectory

pytestmark = pytest.mark.usefixtures("lenient_promotion")

ALL_FORMS = [None, "bfloat16", "float16", "uint16"]
ROWS, WIDTH, STEPS = 8, 6, 40


def draw(steps=STEPS, seed=0, rows=ROWS):
    """Return parameters, gradients, and which rows have one: the first never does."""
    rng = np.random.default_rng(seed)
    stepping = rng.random((steps, rows)) < rng.uniform(0.1, 0.9, rows)
    stepping[:, 0], stepping[:, 1] = False, True
    gradients = rng.normal(size=(steps, rows, WIDTH)) * stepping[:, :, None]
    params = rng.normal(size=(rows, WIDTH))
    return params.astype(np.float32), gradients.astype(np.float32), stepping


def moments(state):
    """Return m and u in float32."""
    state = cast_state(state, None)
    return [optax.tree_utils.tree_get(state, name) for name in ("mu", "nu")]


def test_the_numbers_of_tensorflow():
    # tf_keras.optimizers.legacy.Adamax(0.1) from 1, given slices of one row or two.
    tx, p = ao.lazy_rows(ao.adamax(0.1, eps=0.0, eps_outside=1e-7)), jnp.ones((4, 1))
    state = tx.init(p)
    for g in ([0.5, 0, 0.5, 0], [0, 0, 1.5, 0], [2.5, 0, 2.5, 0]):
        updates, state = tx.update(jnp.array(g)[:, None], state, p)
        p = optax.apply_updates(p, updates)
    np.testing.assert_allclose(p[:, 0], [0.8565, 1, 0.7688, 1], atol=5e-5)


@pytest.mark.parametrize("form", ALL_FORMS)
def test_a_row_that_waits_keeps_every_bit(form):
    params, gradients, stepping = draw()
    tx = ao.lazy_rows(ao.adamax(0.01, weight_decay=0.1, b2=0.9, state_dtype=form))
    p, state = jnp.asarray(params), tx.init(params)
    update = jax.jit(tx.update)
    for g, steps in zip(gradients, stepping, strict=True):
        updates, new = update(g, state, p)
        chex.assert_trees_all_equal_shapes_and_dtypes(state, new)
        for before, after in zip(moments(state), moments(new), strict=True):
            np.testing.assert_array_equal(after[~steps], before[~steps])
            assert (after[steps] != before[steps]).any()
        assert (np.asarray(updates) != 0).any(axis=1).tolist() == steps.tolist()
        p, state = optax.apply_updates(p, updates), new
    assert optax.tree_utils.tree_get(state, "count") == STEPS


# m and u of a row differ by their rounding only. u is rounded to nearest.
TOLERANCE = {None: 1e-6, "bfloat16": 0.02, "float16": 0.01, "uint16": 0.2}


@pytest.mark.parametrize("form", FORMS)
def test_each_row_steps_as_if_alone(form):
    # A leaf of its own, whose gradient is None where it waits.
    params, gradients, stepping = draw()
    inner = ao.adamax(0.01, b2=0.9, state_dtype=form)
    history, state = trajectory(ao.lazy_rows(inner), params, gradients)
    alone, other = list(map(jnp.asarray, params)), inner.init(list(params))
    for g, steps in zip(gradients, stepping, strict=True):
        given = [row if step else None for row, step in zip(g, steps, strict=True)]
        updates, other = inner.update(given, other, alone)
        alone = [p if u is None else p + u for p, u in zip(alone, updates, strict=True)]
    (mu, nu), (other_mu, other_nu) = moments(state), map(np.stack, moments(other))
    np.testing.assert_allclose(nu, other_nu, rtol=1e-6)
    scale = TOLERANCE[form]
    assert (np.abs(mu - other_mu) <= scale * nu).all()
    np.testing.assert_allclose(history[-1], np.stack(alone), atol=scale * 0.01 * 6)


@pytest.mark.parametrize("form", FORMS)
def test_after_a_long_wait(form):
    # In between, the last row's scale has passed 1/2 and been multiplied by 4.
    tx = ao.lazy_rows(ao.adamax(0.01, state_dtype=form))
    ones = jnp.ones((3, WIDTH))
    updates, state = tx.update(ones, tx.init(ones), ones)
    only_the_last = ones * jnp.array([[0.0], [0.0], [1e-3]])

    @jax.jit
    def wait(state):
        return jax.lax.fori_loop(
            0, 5000, lambda _, s: tx.update(only_the_last, s, ones)[1], state
        )

    after = wait(state)
    for old, new in zip(moments(state), moments(after), strict=True):
        np.testing.assert_array_equal(new[:2], old[:2])
    np.testing.assert_allclose(moments(after)[1][2], 0.999**5000, rtol=0.15)
    again, _ = tx.update(ones, after, ones)
    # m = 0.19, u = 1, and by now there is no bias to correct.
    np.testing.assert_allclose(
        again[:2], -0.0019, rtol=0.01 if form != "uint16" else 0.1
    )


def test_dense_leaves_by_mask():
    params, gradients, _ = draw()
    both, given = {"a": params, "b": params}, {"a": gradients, "b": gradients}
    tx = ao.adamax(0.01)
    dense, _ = trajectory(tx, params, gradients)
    lazy, _ = trajectory(ao.lazy_rows(tx), params, gradients)
    assert np.abs(dense - lazy).max() > 0.01
    for mask in ({"a": True, "b": False}, lambda tree: {"a": True, "b": False}):
        history, _ = trajectory(ao.lazy_rows(tx, mask), both, given)
        chex.assert_trees_all_close(history, {"a": lazy, "b": dense}, atol=1e-6)
    rules = {"a": ao.lazy_rows(ao.adamax(0.01)), ".*": {}}
    tx = ao.param_groups(rules, learning_rate=0.01)
    history, _ = trajectory(tx, both, given)
    chex.assert_trees_all_close(history, {"a": lazy, "b": dense}, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_wrappers(form):
    params, gradients, _ = draw()
    rate = 2.0**-6  # the same in float32

    def make(learning_rate, b2=0.875):
        return ao.lazy_rows(ao.adamax(learning_rate, b2=b2, state_dtype=form))

    expected, _ = trajectory(make(rate), params, gradients)
    tx = optax.inject_hyperparams(make)(rate, b2=0.875)
    history, _ = trajectory(tx, params, gradients)
    np.testing.assert_allclose(history, expected, rtol=1e-6, atol=1e-6)
    # The mean of a gradient and itself is that gradient.
    tx = optax.MultiSteps(make(rate), 2)
    history, _ = trajectory(tx, params, np.repeat(gradients, 2, axis=0))
    np.testing.assert_allclose(history[1::2], expected, rtol=1e-6, atol=1e-6)
    tx = optax.apply_if_finite(make(rate), 5)
    history, _ = trajectory(tx, params, gradients)
    np.testing.assert_allclose(history, expected, rtol=1e-6, atol=1e-6)


INSIDE = {
    "partition": lambda tx: ao.param_groups({"a": tx, ".*": tx}),
    "masked": lambda tx: optax.masked(tx, {"a": True, "b": True}),
    "chain": lambda tx: optax.chain(optax.clip_by_global_norm(1.0), tx, optax.ema(0.9)),
    "finite": lambda tx: optax.apply_if_finite(tx, 3),
    "split": optax.contrib.split_real_and_imaginary,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrapper", INSIDE.values(), ids=INSIDE)
def test_wrappers_inside(wrapper, form):
    params, gradients, stepping = draw(steps=5)
    both = {"a": params, "b": params[:, 0]}
    tx = ao.lazy_rows(wrapper(ao.adamax(0.01, weight_decay=0.1, state_dtype=form)))
    state, update = tx.init(both), jax.jit(tx.update)
    for g, steps in zip(gradients, stepping, strict=True):
        updates, new = update({"a": g, "b": g[:, 0]}, state, both)
        chex.assert_trees_all_equal_shapes_and_dtypes(state, new)
        for x in jax.tree.leaves(updates):
            moved = (np.asarray(x) != 0).reshape(ROWS, -1).any(axis=1)
            assert moved.tolist() == steps.tolist()
        state = new


@pytest.mark.parametrize("form", FORMS)
def test_vmap(form):
    params, gradients, _ = draw()
    tx = ao.lazy_rows(ao.adamax(0.01, state_dtype=form))

    def run(params, gradients):
        def step(carry, g):
            updates, state = tx.update(g, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), gradients)[0][0]

    others = np.stack([params, -params]), np.stack([gradients, gradients[::-1]])
    batch = jax.jit(jax.vmap(run))(*map(jnp.asarray, others))
    for i in range(2):
        alone = jax.jit(run)(*(jnp.asarray(x[i]) for x in others))
        np.testing.assert_allclose(batch[i], alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("inner", [optax.adam(0.01), optax.sgd(0.01, momentum=0.9)])
def test_other_optimizers(inner):
    params, gradients, stepping = draw()
    tx = ao.lazy_rows(inner)
    state, p = tx.init(params), jnp.asarray(params)
    for g, steps in zip(gradients, stepping, strict=True):
        updates, state = tx.update(g, state, p)
        assert (np.asarray(updates) != 0).any(axis=1).tolist() == steps.tolist()
    always = optax.apply_updates(p, tx.update(np.ones_like(p), tx.init(p), p)[0])
    expected, _ = inner.update(np.ones_like(p), inner.init(p), p)
    np.testing.assert_array_equal(always, p + expected)


def test_a_schedule_counts_all_steps():
    tx = ao.lazy_rows(ao.adamax(lambda count: 0.1 * count, b1=0.0))
    ones = jnp.ones((2, 3))
    for _ in range(3):
        updates, state = tx.update(ones * 0, tx.init(ones), ones)
    state = tx.init(ones)
    for g in (ones * 0, ones * 0, ones):
        updates, state = tx.update(g, state, ones)
    np.testing.assert_allclose(updates, -0.2, rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_leaves_of_other_ranks_and_missing_gradients(form):
    params = {
        "scalar": jnp.ones(()),
        "vector": jnp.ones(3),
        "cube": jnp.ones((2, 3, 4)),
        "empty": jnp.ones((0, 3)),
        "frozen": {"x": jnp.ones((2, 2)), "y": jnp.ones(2)},
    }
    tx = ao.lazy_rows(ao.adamax(0.5, state_dtype=form))
    state = tx.init(params)
    gradients = jax.tree.map(jnp.ones_like, params)
    gradients["vector"] = jnp.array([1.0, 0.0, -0.0])
    gradients["cube"] = gradients["cube"].at[0].set(0.0)
    gradients["frozen"] = None
    updates, new = tx.update(gradients, state, params)
    assert updates["frozen"] is None
    np.testing.assert_allclose(updates["scalar"], -0.5, rtol=0.05)
    np.testing.assert_allclose(updates["vector"], [-0.5, 0, 0], rtol=0.05)
    np.testing.assert_array_equal(updates["cube"][0], 0)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, new)
    # A missing gradient is none, in leaves that are not lazy too.
    dense = ao.lazy_rows(ao.adamax(0.5, state_dtype=form), dict.fromkeys(params, False))
    _, state = dense.update(jax.tree.map(jnp.ones_like, params), state, params)
    for either in (tx, dense):
        _, new = either.update(gradients, state, params)
        before, after = moments(state)[1]["frozen"], moments(new)[1]["frozen"]
        chex.assert_trees_all_equal(before, after)
    # Nothing at all, and a NaN, which is no 0.
    assert tx.update({}, tx.init({}), {})[0] == {}
    nan = jnp.full((2, 2), jnp.nan)
    assert np.isnan(tx.update(nan, tx.init(nan), nan)[0]).all()


def test_complex_rows():
    tx, ones = ao.lazy_rows(ao.adamax(0.5)), jnp.ones((2, 2), jnp.complex64)
    g = jnp.array([[0, 0], [0, 1j]], jnp.complex64)
    updates, _ = tx.update(g, tx.init(ones), ones)
    np.testing.assert_allclose(updates, [[0, 0], [0, -0.5j]], rtol=1e-6)


MODES = [AxisType.Auto, AxisType.Explicit]


@pytest.mark.usefixtures("shardy")
@pytest.mark.parametrize("mode", MODES, ids=["auto", "explicit"])
@pytest.mark.parametrize("form", FORMS)
def test_rows_on_eight_devices(form, mode):
    params, gradients, _ = draw(steps=3, rows=16)
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(mode,))
    spread, whole = NamedSharding(mesh, P("rows")), NamedSharding(mesh, P())
    params = {"embedding": params, "bias": np.ones(3, np.float32)}
    places = {"embedding": spread, "bias": whole}
    gradients = [{"embedding": g, "bias": g[1, :3]} for g in gradients]
    tx = ao.lazy_rows(ao.adamax(0.01, weight_decay=0.1, state_dtype=form))

    def step(gradients, params, state):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    p, q = jax.device_put(params, places), jax.tree.map(jnp.asarray, params)
    shardings = ao.state_shardings(tx, p)
    state = jax.jit(tx.init, out_shardings=shardings)(p)
    eager = tx.init(p)
    for x, y in zip(*map(jax.tree.leaves, (state, eager)), strict=True):
        assert x.sharding.is_equivalent_to(y.sharding, x.ndim)
        assert x.shape[:1] != (16,) or x.sharding.is_equivalent_to(spread, x.ndim)
    other = tx.init(q)
    compiled = jax.jit(step)
    program = compiled.lower(jax.device_put(gradients[0], places), p, state).compile()
    assert [name for name in COLLECTIVES if name in program.as_text()] == []
    for g in gradients:
        p, state = compiled(jax.device_put(g, places), p, state)
        q, other = jax.jit(step)(jax.tree.map(jnp.asarray, g), q, other)
    chex.assert_trees_all_close(jax.device_get(p), jax.device_get(q), atol=1e-6)
    for x, y in zip(*map(jax.tree.leaves, (state, eager)), strict=True):
        assert x.sharding.is_equivalent_to(y.sharding, x.ndim)


def test_scales_of_rows_are_divided_like_the_rows():
    mesh = jax.make_mesh((8,), ("data",))
    params = {"a": jnp.ones((16, 3)), "b": jnp.ones((3, 16)), "c": jnp.ones((3, 3))}
    params = jax.device_put(params, NamedSharding(mesh, P()))
    tx = ao.lazy_rows(ao.adamax(state_dtype=jnp.uint16))
    shardings = ao.state_shardings(tx, params, axis="data")
    specs = jax.tree.map(lambda s: s.spec, shardings)
    [codes] = optax.tree_utils.tree_get(specs, "codes")
    [scale] = optax.tree_utils.tree_get(specs, "scale")
    [bound] = optax.tree_utils.tree_get(specs, "bound")
    assert codes == {"a": P("data"), "b": P(None, "data"), "c": P()}
    assert scale == bound == {"a": P("data"), "b": P(), "c": P()}


@pytest.mark.parametrize("form", FORMS)
def test_states_of_other_libraries_and_forms(form):
    params, gradients, _ = draw()
    tx = ao.lazy_rows(ao.adamax(0.01, state_dtype=form))
    _, state = trajectory(tx, [params], [gradients])
    mu, nu = (np.asarray(x[0]) for x in moments(state))
    variables = {"iteration": np.int32(0), "w_momentum": mu * 0, "w_norm": nu * 0}
    saved = dict(zip(variables, to_keras(state, variables), strict=True))
    np.testing.assert_array_equal(saved["w_norm"], nu)
    fresh = tx.init([params])
    filled = from_keras(saved, fresh)
    chex.assert_trees_all_equal_shapes_and_dtypes(filled, fresh)
    np.testing.assert_allclose(moments(filled)[1][0], nu, rtol=0.13, atol=1e-8)
    # Cast to another form, and on with it.
    for dtype in ALL_FORMS:
        other = ao.lazy_rows(ao.adamax(0.01, state_dtype=dtype))
        cast = cast_state(state, dtype)
        np.testing.assert_allclose(moments(cast)[1][0], nu, rtol=0.13, atol=1e-8)
        _, after = other.update([gradients[0]], cast, [params])
        waits = ~gradients[0].any(axis=1)
        np.testing.assert_array_equal(
            moments(after)[1][0][waits], moments(cast)[1][0][waits]
        )
        chex.assert_trees_all_equal_shapes_and_dtypes(after, other.init([params]))


def test_refusals():
    params = {"w": jnp.ones((2, 2))}
    state = ao.lazy_rows(ao.adamax()).init(params)
    with pytest.raises(ValueError, match=r"gradient at \['w'\] has dtype int32"):
        ao.lazy_rows(ao.adamax()).update({"w": jnp.ones((2, 2), int)}, state)
    with pytest.raises(ValueError, match="mask must have the structure"):
        ao.lazy_rows(ao.adamax(), {"v": True}).update(params, state)
    with pytest.raises(ValueError, match="do not have the structure"):
        ao.lazy_rows(ao.adamax()).update({"v": jnp.ones((2, 2))}, state)
    with pytest.raises(ValueError, match="needs the parameters"):
        tx = ao.lazy_rows(ao.adamax(weight_decay=0.1))
        tx.update(params, tx.init(params))


@pytest.mark.parametrize("inner", [3, ao.adamax])
def test_inner_must_be_a_transformation(inner):
    with pytest.raises(ValueError, match="inner must be an Optax transformation"):
        ao.lazy_rows(inner)


@pytest.mark.parametrize(
    "inner", [optax.adafactor(0.1, min_dim_size_to_factor=2), optax.sm3(0.1)]
)
@pytest.mark.usefixtures("lenient_promotion")
def test_state_of_other_shapes_is_refused(inner):
    params = jnp.ones((4, 4))
    tx = ao.lazy_rows(inner)
    with pytest.raises(ValueError, match="inner must have state of the parameters'"):
        tx.update(params, tx.init(params), params)
