"""stochastic_rounding: the sum itself, up or down, without bias."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamax_optax as ao

HALF = ["bfloat16", "float16"]
SIZE = 4096


def rounded(p, update, dtype, seed=0):
    """Return p + update as apply_updates leaves it, once for each of SIZE places."""
    params = jnp.full(SIZE, p, dtype)
    updates = jnp.full(SIZE, update, jnp.float32)
    tx = ao.stochastic_rounding(seed)
    updates, _ = tx.update(updates, tx.init(params), params)
    with jax.numpy_dtype_promotion("standard"):
        new = optax.apply_updates(params, updates)
    # Nothing was lost: what apply_updates rounded was representable.
    wide = np.asarray(params, np.float64) + np.asarray(updates, np.float64)
    np.testing.assert_array_equal(np.asarray(new, np.float64), wide)
    assert new.dtype == dtype
    return wide


@pytest.mark.parametrize("dtype", HALF)
@hypothesis.settings(max_examples=50)
@hypothesis.given(
    st.floats(-100, 100, width=16), st.floats(-1, 1, width=32), st.floats(-12, 0)
)
def test_neighbours_without_bias(dtype, p, sign, exponent):
    p = np.float32(jnp.asarray(p, dtype))
    update = np.float32(sign * 2.0**exponent)
    values = rounded(p, update, dtype)
    exact = np.float64(np.float32(p + update))
    info = jnp.finfo(dtype)
    magnitude = max(abs(exact), float(info.tiny))
    spacing = max(2.0 ** (np.floor(np.log2(magnitude)) - info.nmant), 2.0**-126)
    assert len(np.unique(values)) <= 2
    assert np.all(np.abs(values - exact) < spacing)
    assert abs(values.mean() - exact) <= 5 * spacing / 2 / np.sqrt(SIZE)


@pytest.mark.parametrize("dtype", HALF)
def test_finite_never_becomes_infinite(dtype):
    largest = float(jnp.finfo(dtype).max)
    values = rounded(largest, np.float32(largest * 2.0**-12), dtype)
    np.testing.assert_array_equal(values, largest)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_non_finite_stays_visible(bad):
    tx = ao.stochastic_rounding()
    params = jnp.ones(3, jnp.bfloat16)
    updates, _ = tx.update(jnp.full(3, bad, jnp.bfloat16), tx.init(params), params)
    np.testing.assert_array_equal(updates, bad)


def test_subnormal_float16():
    # Spacing 2^-24 down to 0.
    values = rounded(0.0, np.float32(2.0**-26), "float16")
    assert set(np.unique(values)) == {0.0, 2.0**-24}
    np.testing.assert_allclose((values > 0).mean(), 0.25, atol=5 * 0.433 / 64)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_wider_parameters_pass(dtype):
    tx = ao.stochastic_rounding()
    params = {"p": jnp.ones(3, dtype), "none": None}
    updates = {"p": jnp.full(3, 1e-9, dtype), "none": None}
    got, _ = tx.update(updates, tx.init(params), params)
    assert got["p"] is updates["p"] and got["none"] is None


def test_leaf_without_update_passes():
    tx = ao.stochastic_rounding()
    params = {"p": jnp.ones(3, jnp.bfloat16)}
    assert tx.update({"p": None}, tx.init(params), params)[0] == {"p": None}


def test_noise_changes_with_step_seed_leaf_and_not_otherwise():
    params = [jnp.ones(64, jnp.bfloat16)] * 2
    updates = [jnp.full(64, 2.0**-9, jnp.float32)] * 2

    def run(seed, steps=1):
        tx = ao.stochastic_rounding(seed)
        state = tx.init(params)
        for _ in range(steps):
            got, state = tx.update(updates, state, params)
        return np.stack(got)

    np.testing.assert_array_equal(run(0), run(0))
    assert np.any(run(0) != run(1))
    assert np.any(run(0) != run(0, steps=2))
    assert np.any(run(0)[0] != run(0)[1])


@pytest.mark.parametrize(
    "seed", [-1, 2**32, 1.5, None, "0", np.int64(-1), np.float32(1), jnp.ones(2, int)]
)
def test_seed_out_of_range(seed):
    with pytest.raises(ValueError, match="seed must be a whole number") as error:
        ao.stochastic_rounding(seed)
    assert repr(seed) in str(error.value)


def test_needs_parameters():
    tx = ao.stochastic_rounding()
    with pytest.raises(ValueError, match="needs the parameters"):
        tx.update(jnp.ones(2), tx.init(None))


@pytest.mark.usefixtures("lenient_promotion")
def test_after_wrappers_that_skip_steps():
    params = jnp.full(64, 1.0, jnp.bfloat16)
    inner = ao.adamax(1e-3, state_dtype=jnp.uint16)
    for wrapped, first in [
        (optax.apply_if_finite(inner, 5), jnp.full(64, np.nan, jnp.bfloat16)),
        (optax.MultiSteps(inner, 2).gradient_transformation(), params),
    ]:
        tx = optax.chain(wrapped, ao.stochastic_rounding())
        state = tx.init(params)
        skipped, state = jax.jit(tx.update)(first, state, params)
        np.testing.assert_array_equal(skipped, 0)
        updates, state = jax.jit(tx.update)(params, state, params)
        new = optax.apply_updates(params, updates)
        assert new.dtype == jnp.bfloat16 and np.any(new < 1) and np.any(new == 1)


@pytest.mark.usefixtures("lenient_promotion")
def test_trains_where_rounding_to_nearest_stalls():
    # Each step is a 1/1000 of p, half of what bfloat16 can tell apart.
    target = jnp.linspace(1.25, 1.75, 256)

    def train(tx, dtype):
        params = jnp.ones(256, dtype)
        state = tx.init(params)

        @jax.jit
        def step(params, state):
            gradients = (params.astype(jnp.float32) - target).astype(dtype)
            updates, state = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        for _ in range(2000):
            params, state = step(params, state)
        return float(jnp.mean((params.astype(jnp.float32) - target) ** 2))

    adamax = ao.adamax(1e-3)
    nearest = train(adamax, "bfloat16")
    stochastic = train(optax.chain(adamax, ao.stochastic_rounding()), "bfloat16")
    exact = train(adamax, "float32")
    assert nearest > 0.2  # it never moved
    assert exact < 1e-8
    # Within the spacing of bfloat16 there, 2^-7.
    assert stochastic < 2.0**-14


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ({"a": jnp.ones(1)}, r"at \['a'\] has shape \(1,\), the parameter .* \(3,\)"),
        ({"a": jnp.ones(3, "complex64")}, r"at \['a'\] has dtype complex64"),
        ({"a": jnp.ones(3, int)}, r"update at \['a'\] has dtype int32"),
        ({"a": "text"}, r"update at \['a'\] must be an array"),
        ({"b": jnp.ones(3)}, "do not have the structure of the updates"),
        ([jnp.ones(3)], "do not have the structure of the updates"),
    ],
)
def test_updates_that_do_not_fit(updates, message):
    # They were broadcast, or cut down to their real parts.
    tx = ao.stochastic_rounding()
    params = {"a": jnp.ones(3, jnp.bfloat16)}
    with pytest.raises(ValueError, match=message):
        tx.update(updates, tx.init(params), params)


@pytest.mark.parametrize("seed", [3, np.uint32(3), np.array(3), jnp.array(3)])
def test_seeds_of_every_kind(seed):
    assert ao.stochastic_rounding(seed).init({}).seed == 3
