"""States from one form into another."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamax_optax as ao
from adamax_optax.moments import restore_codes
from tests.moments.coding import cast, decoded, encoded

FORMS = [None, "bfloat16", "float16", "uint16"]
# How far one rounding may move u, and m relative to u.
U_ERROR = {None: 0, "bfloat16": 2.0**-8, "float16": 2.0**-10, "uint16": 0.12}
M_ERROR = {None: 0, "bfloat16": 2.0**-7, "float16": 2.0**-9, "uint16": 0.04}
PARAMS = {"a": jnp.ones((8, 3)), "b": jnp.ones(5), "none": None}


def optimizer(state_dtype):
    return optax.chain(
        optax.clip_by_global_norm(1.0), ao.adamax(0.01, state_dtype=state_dtype)
    )


@functools.cache
def update_of(state_dtype):
    """Return the compiled update."""
    return jax.jit(optimizer(state_dtype).update)


@functools.cache
def after_steps(state_dtype, steps=20):
    """Return the state after some noisy steps."""
    state = optimizer(state_dtype).init(PARAMS)
    key = jax.random.key(0)
    for i in range(steps):
        gradients = jax.tree.map(
            lambda p, i=i: jax.random.normal(jax.random.fold_in(key, i), p.shape),
            PARAMS,
        )
        _, state = update_of(state_dtype)(gradients, state, PARAMS)
    return state


def moments(state):
    """Return m and u in float32."""
    state = cast(state, None)
    get = optax.tree_utils.tree_get
    return get(state, "mu"), get(state, "nu")


@pytest.mark.parametrize("new", FORMS)
@pytest.mark.parametrize("old", FORMS)
def test_error_is_one_rounding(old, new):
    state = after_steps(old)
    other = cast(state, new)
    chex.assert_trees_all_equal_shapes_and_dtypes(other, optimizer(new).init(PARAMS))
    (m, u), (cast_m, cast_u) = moments(state), moments(other)
    for name in ["a", "b"]:
        np.testing.assert_allclose(cast_u[name], u[name], rtol=U_ERROR[new])
        error = np.abs(cast_m[name] - m[name]) / u[name]
        # m follows u in the 16-bit word, which holds their ratio.
        allowed = M_ERROR[new] + U_ERROR[new] * np.abs(m[name] / u[name])
        assert np.all(error <= allowed)


@pytest.mark.parametrize("new", FORMS)
@pytest.mark.parametrize("old", FORMS)
def test_run_goes_on(old, new):
    kept = after_steps(old)
    state = cast(kept, new)
    gradients = jax.tree.map(jnp.ones_like, PARAMS)
    for _ in range(5):
        update, state = update_of(new)(gradients, state, PARAMS)
        expected, kept = update_of(old)(gradients, kept, PARAMS)
    np.testing.assert_allclose(update["a"], expected["a"], rtol=0.3, atol=5e-4)


@pytest.mark.parametrize("form", FORMS[1:])
def test_a_cast_to_the_same_form_keeps_every_norm(form):
    state = after_steps(form)
    (_, u), (_, cast_u) = moments(state), moments(cast(state, form))
    chex.assert_trees_all_equal(cast_u, u)


def test_from_float32_and_back_is_exact_for_float32():
    state = after_steps(None)
    chex.assert_trees_all_equal(ao.interop.cast_state(state, None), state)


@pytest.mark.usefixtures("lenient_promotion")
def test_deep_inside_wrappers():
    tx = optax.MultiSteps(
        optax.inject_hyperparams(ao.adamax)(learning_rate=0.1), every_k_schedule=2
    )
    state = tx.init(PARAMS)
    cast = ao.interop.cast_state(state, jnp.uint16)
    small = optax.MultiSteps(
        optax.inject_hyperparams(ao.adamax, static_args="state_dtype")(
            learning_rate=0.1, state_dtype=jnp.uint16
        ),
        every_k_schedule=2,
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(cast, small.init(PARAMS))


@pytest.mark.parametrize("old", FORMS)
def test_without_leaves(old):
    # As in the part of an optax.partition that no leaf is in.
    state = ao.adamax(state_dtype=old).init({"none": None})
    cast = ao.interop.cast_state(state, None)
    chex.assert_trees_all_equal(cast, ao.adamax().init({"none": None}))


def every_code(state_dtype):
    """Return the state in which every number that a code can be is one."""
    bits = np.arange(2**16, dtype=np.uint16)
    if state_dtype == "uint16":
        return (bits[(bits & 0xFF) != 0xFF],)  # 0xFF: the norm is not a number
    values = bits.view(jnp.dtype(state_dtype))
    largest = encoded(np.inf, np.inf, state_dtype)
    finite = values[np.isfinite(values.astype(np.float32))]
    means = finite[np.abs(finite.astype(float)) <= float(largest.codes[0])]
    low, high = encoded(0.0, [0.0, np.inf], state_dtype).codes[1].astype(float)
    norms = means[(means.astype(float) >= low) & (means.astype(float) <= high)]
    return means, np.resize(norms, means.shape)


@pytest.mark.parametrize("bound", [2.0**-20, 0.1, 1.009, 64.0])
@pytest.mark.parametrize("state_dtype", FORMS[1:])
def test_decoded_codes_are_coded_again_as_themselves(state_dtype, bound):
    bounds = jnp.full(1, bound) if state_dtype == "uint16" else None
    codes = every_code(state_dtype)
    key = jnp.asarray(2**32 - 5, jnp.uint32)
    link = ao.scale_by_infinity_norm(state_dtype=state_dtype)
    fresh = link.init(jnp.zeros(codes[0].shape))

    @jax.jit
    def there_and_back(scale):
        state = fresh._replace(
            codes=tuple(map(jnp.asarray, codes)), scale=scale, bound=bounds, key=key
        )
        decoded = ao.interop.cast_state(state, None)
        return restore_codes(decoded, state_dtype, scale, bounds, key)

    scales = np.random.default_rng(0).uniform(0.5, 2, 8)
    for scale in [1.0, *scales.astype(np.float32)]:
        again = there_and_back(jnp.full(1, scale, jnp.float32))
        for code, expected in zip(again.codes, codes, strict=True):
            assert code.dtype == expected.dtype
            np.testing.assert_array_equal(
                np.asarray(code).view(np.uint16), expected.view(np.uint16)
            )
        assert again.scale == scale and again.key == key


def test_under_jit():
    state = after_steps(None)
    cast = jax.jit(lambda state: ao.interop.cast_state(state, jnp.uint16))(state)
    chex.assert_trees_all_equal(cast, ao.interop.cast_state(state, jnp.uint16))


def test_masked_leaves():
    tx = optax.masked(ao.adamax(), {"a": True, "b": False, "none": True})
    cast = ao.interop.cast_state(tx.init(PARAMS), jnp.bfloat16)
    small = optax.masked(
        ao.adamax(state_dtype=jnp.bfloat16), {"a": True, "b": False, "none": True}
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(cast, small.init(PARAMS))


def test_leaves_on_different_devices_stay_there():
    one, two = jax.devices()[:2]
    params = [jax.device_put(jnp.ones(3), one), jax.device_put(jnp.ones(4), two)]
    state = ao.adamax().init(params)
    small = ao.interop.cast_state(state, jnp.uint16)
    codes = optax.tree_utils.tree_get(small, "codes")[0]
    assert [code.devices() for code in codes] == [{one}, {two}]
    back = ao.interop.cast_state(small, None)
    chex.assert_trees_all_equal(
        optax.tree_utils.tree_get(back, "mu"), optax.tree_utils.tree_get(state, "mu")
    )


@pytest.mark.parametrize("state_dtype", FORMS)
def test_cast_to_the_same_form_changes_no_bit(state_dtype):
    state = after_steps(state_dtype)
    chex.assert_trees_all_equal(ao.interop.cast_state(state, state_dtype), state)


@pytest.mark.parametrize("m", [1e11, -1e30, np.inf])
@pytest.mark.parametrize("state_dtype", ["bfloat16", "float16"])
def test_moments_beyond_the_range_stay_finite(state_dtype, m):
    mean, norm = decoded(encoded(m, abs(m), state_dtype))
    assert np.isfinite(mean) and np.isfinite(norm) and np.sign(mean) == np.sign(m)


@pytest.mark.parametrize("state_dtype", FORMS[1:])
def test_a_run_with_huge_gradients_can_be_cast(state_dtype):
    # m is clipped as in a step: in float16 it was infinite, and all updates for ever.
    wide, small = (
        ao.scale_by_infinity_norm(state_dtype=x) for x in (None, state_dtype)
    )
    g = jnp.array([1e10, -1e10, 1.0])
    state = wide.init(g)
    for _ in range(3):
        _, state = wide.update(g, state)
    state = cast(state, state_dtype)
    for _ in range(3):
        update, state = small.update(g, state)
        assert np.all(np.sign(update) == np.sign(g))
        assert np.all(np.abs(update) < 1.0)


@pytest.mark.parametrize("steps", [100, 200, 400])
def test_a_mean_that_has_decayed_stays_what_it_is(steps):
    """Long after the last gradient, |m| / u is far below any bound of a step."""
    params = jnp.ones(4096)
    tx = ao.scale_by_infinity_norm()
    _, state = tx.update(params, tx.init(params))
    decay = jax.jit(lambda state: tx.update(0 * params, state)[1])
    for _ in range(steps):
        state = decay(state)
    word = ao.interop.cast_state(state, jnp.uint16)
    back = ao.interop.cast_state(word, None)
    np.testing.assert_allclose(back.mu.mean(), state.mu.mean(), rtol=2e-3)
    again = restore_codes(back, jnp.uint16, word.scale, word.bound, word.key)
    np.testing.assert_array_equal(again.codes[0], word.codes[0])


@pytest.mark.parametrize(("m", "u"), [(np.nan, 1.0), (0.1, np.nan), (np.nan, np.inf)])
def test_not_a_number_survives_the_word(m, u):
    small = encoded([m, 0.5], [u, 1.0], "uint16")
    mean, norm = decoded(small)
    assert np.isnan(mean[0]) and np.isnan(norm[0]) and np.isfinite(mean[1])
    again = encoded(mean, norm, "uint16")
    assert np.isnan(decoded(again)[0][0])
    link = ao.scale_by_infinity_norm(state_dtype="uint16")
    update, _ = link.update(jnp.ones(2), again)
    assert np.isnan(update[0]) and np.isfinite(update[1])


def test_batch_of_states_is_refused_with_the_way_that_works():
    params = {"a": jnp.ones((2, 3)), "b": jnp.ones((2, 3))}
    state = jax.vmap(ao.adamax(state_dtype="uint16").init)(params)
    with pytest.raises(ValueError, match=r"shape \(2, 2\) for 2 leaves: .* jax.vmap"):
        ao.interop.cast_state(state, None)
    wide = jax.vmap(lambda s: ao.interop.cast_state(s, None))(state)
    chex.assert_trees_all_equal_shapes(wide, jax.vmap(ao.adamax().init)(params))


@pytest.mark.parametrize("new", FORMS)
@pytest.mark.parametrize("old", FORMS)
def test_state_of_another_form_is_refused_by_name(old, new):
    state, tx = ao.adamax(state_dtype=old).init(PARAMS), ao.adamax(state_dtype=new)
    if old == new:
        tx.update(PARAMS, state)
        return
    message = f"state_dtype={old}, but this optimizer has state_dtype={new}.*cast_state"
    with pytest.raises(ValueError, match=message):
        tx.update(PARAMS, state)


def test_complex_moments_are_refused():
    state = ao.adamax().init(jnp.ones(3, jnp.complex64))
    with pytest.raises(ValueError, match="complex parameters"):
        ao.interop.cast_state(state, jnp.uint16)


def test_no_moments():
    with pytest.raises(ValueError, match="no moments"):
        ao.interop.cast_state(optax.adam(0.1).init(PARAMS), jnp.uint16)


@pytest.mark.parametrize("state_dtype", ["int8", "float32", 7])
def test_unknown_form(state_dtype):
    with pytest.raises(ValueError, match="state_dtype must be .* got"):
        ao.interop.cast_state(after_steps(None, 1), state_dtype)
