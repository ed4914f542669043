"""stochastic_rounding: the sum itself, up or down, without bias."""

import functools

import chex
import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamax_optax as ao
from adamax_optax._rounding import from_bits
from tests.moments.coding import NOT_A_NUMBER

HALF = ["bfloat16", "float16"]
SIZE = 4096
# All the ways in which libraries add an update.
ADDITIONS = {
    "optax": optax.apply_updates,
    "equinox": eqx.apply_updates,
    "plus": lambda params, updates: jax.tree.map(jnp.add, params, updates),
}


def wrapper(seed=0):
    """Return the wrapper around nothing: what it is given is what it adds."""
    return ao.stochastic_rounding(optax.identity(), seed)


@functools.cache
def compiled(dtype):
    @jax.jit
    def step(p, update):
        params = jnp.full(SIZE, p, dtype)
        tx = wrapper()
        updates, _ = tx.update(jnp.full(SIZE, update), tx.init(params), params)
        return updates, optax.apply_updates(params, updates)

    return step


def rounded(p, update, dtype):
    """Return p + update as apply_updates leaves it, once for each of SIZE places."""
    updates, new = compiled(dtype)(np.float32(p), np.float32(update))
    assert updates.dtype == new.dtype == dtype
    # The compiler did not keep what the dtype cannot hold.
    np.testing.assert_array_equal(new, jnp.full(SIZE, p, dtype) + updates)
    return np.asarray(new, np.float64)


def spacing(x, dtype):
    """Return the distance between neighbours of `dtype` at a float64 number."""
    info = jnp.finfo(dtype)
    exponent = np.floor(np.log2(max(abs(x), float(info.tiny))))
    return max(2.0 ** (exponent - info.nmant), 2.0**-126)


def assert_unbiased(values, exact, grid):
    assert len(np.unique(values)) <= 2
    assert np.all(np.abs(values - exact) < grid)
    assert abs(values.mean() - exact) <= 5 * grid / 2 / np.sqrt(SIZE)


PARAMETERS = st.floats(-100, 100, width=16)


@pytest.mark.parametrize("dtype", HALF)
@hypothesis.given(PARAMETERS, st.floats(-0.5, 0.5, width=32), st.floats(-12, 0))
def test_neighbours_without_bias(dtype, p, part, exponent):
    # An update of at most half of p: the sum is a neighbour of p + update.
    p = np.float32(jnp.asarray(p, dtype))
    update = np.float32(p * np.float32(part * 2.0**exponent))
    exact = np.float64(np.float32(p + update))
    assert_unbiased(rounded(p, update, dtype), exact, spacing(exact, dtype))


@pytest.mark.parametrize("dtype", HALF)
@hypothesis.settings(max_examples=300)
# The sum rounded p away, to the same even number each time.
@hypothesis.example(0.7109375, -2.7882497, 0.0)
@hypothesis.example(2.015625, -6.4842296, 0.0)
@hypothesis.example(2.3, -11.8878, 0.0)
# In float16, close to the largest number, and at the edges of binades.
@hypothesis.example(16.0, 65440.0, 0.0)
@hypothesis.example(20.0, 65480.0, 0.0)
@hypothesis.example(0.3, 0.9999, 0.0)
@hypothesis.example(-0.3, 2.0**10 - 2.0**-14, 0.0)
@hypothesis.example(-0.9, 2.2, 0.0)
@hypothesis.given(PARAMETERS, st.floats(-100, 100, width=32), st.floats(-12, 0))
def test_large_updates_without_bias(dtype, p, update, exponent):
    p = np.float32(jnp.asarray(p, dtype))
    update = np.float32(update * 2.0**exponent)
    if abs(update) < 2.0**-126:  # XLA flushes it
        update = np.float32(0)
    exact = np.float64(np.float32(p + update))
    # On the coarser of the two grids; where |p| < |exact|, p may lie halfway between
    # two sums, of which only the even ones can then be reached. Across a power of two
    # the sums may be a step further apart.
    fine = spacing(exact, dtype)
    grid = max(fine, spacing(abs(update) + 2.5 * fine, dtype))
    halfway = abs(p) < abs(exact) and p % fine == fine / 2
    apart = max(grid, 2 * fine * halfway) + fine
    assert_unbiased(rounded(p, update, dtype), exact, apart)


@pytest.mark.parametrize("add", ADDITIONS)
@pytest.mark.parametrize("dtype", HALF)
def test_parameters_keep_their_dtype_under_strict_promotion(dtype, add):
    # As the carry of a scan, which refuses any other dtype.
    tx = ao.stochastic_rounding(ao.adamax(1e-4))
    params = {"w": jnp.ones(SIZE, dtype), "b": jnp.ones(3, jnp.float32)}

    def step(carry, gradients):
        params, state = carry
        updates, state = tx.update(gradients, state, params)
        return (ADDITIONS[add](params, updates), state), None

    gradients = jax.tree.map(lambda p: jnp.ones((20, *p.shape), p.dtype), params)
    (new, _), _ = jax.lax.scan(step, (params, tx.init(params)), gradients)
    np.testing.assert_allclose(new["b"], 1 - 20 * 1e-4, rtol=1e-5)
    wide = new["w"].astype(jnp.float32)
    np.testing.assert_allclose(wide.mean(), new["b"][0], rtol=2e-4)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("rate", [1e-7, 1e-9])
def test_small_updates_arrive_whole(dtype, rate):
    # In the gradients' dtype, float16 makes 120% of a step of 1e-7, 0 of one of 1e-9.
    tx = ao.stochastic_rounding(ao.adamax(rate, b1=0.0, eps=0.0))
    params = jnp.full(1 << 20, 2.0**-10, dtype)
    updates, _ = jax.jit(tx.update)(jnp.ones_like(params), tx.init(params), params)
    up = np.asarray(updates, np.float64)
    deviation = np.sqrt(rate * spacing(2.0**-11, dtype) / up.size)
    assert abs(up.mean() + rate) < 5 * deviation


@pytest.mark.parametrize("dtype", HALF)
def test_the_inner_transformation_runs_in_float32(dtype):
    seen = []

    def update_fn(updates, state, params=None, *, extra):
        seen.append((updates.dtype, state.dtype, params.dtype, extra))
        return updates, state

    inner = optax.GradientTransformationExtraArgs(lambda params: params, update_fn)
    tx, p = ao.stochastic_rounding(inner), jnp.ones(3, dtype)
    tx.update(p, tx.init(p), p, extra=1)
    assert seen == [(jnp.float32, jnp.float32, jnp.float32, 1)]


@pytest.mark.parametrize("dtype", HALF)
@hypothesis.given(PARAMETERS)
def test_no_update_leaves_the_parameter(dtype, p):
    p = np.float32(jnp.asarray(p, dtype))
    np.testing.assert_array_equal(rounded(p, 0.0, dtype), p)


@pytest.mark.parametrize("dtype", HALF)
def test_update_beyond_the_largest_number_is_clipped_to_it(dtype):
    largest = float(jnp.finfo(dtype).max)
    for p in (largest, -largest):
        np.testing.assert_array_equal(rounded(p, -p, dtype), 0)
        np.testing.assert_array_equal(rounded(p, -1.0025 * p, dtype), 0)


@pytest.mark.parametrize("dtype", HALF)
def test_finite_never_becomes_infinite(dtype):
    largest = float(jnp.finfo(dtype).max)
    values = rounded(largest, np.float32(largest * 2.0**-12), dtype)
    np.testing.assert_array_equal(values, largest)


@pytest.mark.parametrize("p", range(0, 64, 4))
def test_large_updates_never_make_float16_infinite(p):
    for update in (65400.0, 65488.0, 65504.0, 1e9):
        for sign in (1, -1):
            values = rounded(sign * p, sign * update, "float16")
            assert np.abs(values).max() <= 65504


@pytest.mark.parametrize("update", [0.0, 1.25, 0.25, -0.75])
@pytest.mark.parametrize("p", [1.0, 1.5, 1.25, -3.25])
def test_smallest_bfloat16(p, update):
    # The update is a multiple of 2^-126, whatever p is. NumPy does not flush.
    tx, quantum = wrapper(), 2.0**-126
    params = jnp.full(SIZE, p * quantum, jnp.bfloat16)
    got, _ = tx.update(jnp.full(SIZE, update * quantum), tx.init(params), params)
    steps = np.asarray(got, np.float64) / quantum
    assert set(np.unique(steps)) <= {np.floor(update), np.ceil(update)}
    normal = 0.0 if abs(update) < 1 else update  # XLA flushes what is smaller
    assert abs(steps.mean() - normal) <= 5 / 2 / np.sqrt(SIZE)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_non_finite_stays_visible(bad):
    tx = wrapper()
    params = jnp.ones(3, jnp.bfloat16)
    updates, _ = tx.update(jnp.full(3, bad, jnp.bfloat16), tx.init(params), params)
    np.testing.assert_array_equal(updates.astype(jnp.float32), bad)


@pytest.mark.parametrize("dtype", HALF)
def test_every_not_a_number_stays_visible(dtype):
    bits = jnp.asarray(np.tile(NOT_A_NUMBER, 512))
    params = jnp.ones(bits.size, dtype)
    updates, _ = wrapper().update(from_bits(bits), wrapper().init(params), params)
    assert np.isnan(updates.astype(jnp.float32)).all()


def test_subnormal_float16():
    # Spacing 2^-24 down to 0.
    values = rounded(0.0, np.float32(2.0**-26), "float16")
    assert set(np.unique(values)) == {0.0, 2.0**-24}
    np.testing.assert_allclose((values > 0).mean(), 0.25, atol=5 * 0.433 / 64)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_wider_parameters_pass(dtype):
    tx = wrapper()
    params = {"p": jnp.ones(3, dtype), "none": None}
    updates = {"p": jnp.full(3, 1e-9, dtype), "none": None}
    got, _ = tx.update(updates, tx.init(params), params)
    chex.assert_trees_all_equal(got, updates)
    chex.assert_trees_all_equal_dtypes(got, updates)


def test_leaf_without_update_passes():
    tx = wrapper()
    params = {"p": jnp.ones(3, jnp.bfloat16)}
    assert tx.update({"p": None}, tx.init(params), params)[0] == {"p": None}


def test_noise_changes_with_step_seed_leaf_and_not_otherwise():
    params = [jnp.ones(64, jnp.bfloat16)] * 2
    updates = [jnp.full(64, 2.0**-9, jnp.float32)] * 2

    def run(seed, steps=1):
        tx = wrapper(seed)
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
        wrapper(seed)
    assert repr(seed) in str(error.value)


@pytest.mark.parametrize("tx", [0, None, ao.adamax])
def test_wraps_a_transformation(tx):
    with pytest.raises(ValueError, match="tx must be an Optax transformation") as e:
        ao.stochastic_rounding(tx)
    assert repr(tx) in str(e.value)


def test_groups_have_noise_of_their_own():
    tx = optax.partition({"a": wrapper(), "b": wrapper()}, {"a": "a", "b": "b"})
    params = dict.fromkeys("ab", jnp.ones(SIZE, jnp.bfloat16))
    updates = dict.fromkeys("ab", jnp.full(SIZE, 2.0**-9, jnp.bfloat16))
    got, _ = tx.update(updates, tx.init(params), params)
    up = [np.asarray(got[name]) > 0 for name in "ab"]
    assert abs(np.corrcoef(*up)[0, 1]) < 5 / np.sqrt(SIZE)


def test_needs_parameters():
    tx = wrapper()
    with pytest.raises(ValueError, match="needs the parameters"):
        tx.update(jnp.ones(2), tx.init(None))


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("outside", [True, False])
def test_wrappers_that_skip_steps(outside):
    params = jnp.full(64, 1.0, jnp.bfloat16)
    inner = ao.adamax(1e-3, state_dtype=jnp.uint16)
    for skipping, first in [
        (lambda tx: optax.apply_if_finite(tx, 5), jnp.full(64, np.nan, jnp.bfloat16)),
        (lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(), params),
    ]:
        if outside:
            tx = skipping(ao.stochastic_rounding(inner))
        else:
            tx = ao.stochastic_rounding(skipping(inner))
        state = tx.init(params)
        skipped, state = jax.jit(tx.update)(first, state, params)
        np.testing.assert_array_equal(skipped, 0)
        updates, state = jax.jit(tx.update)(params, state, params)
        new = optax.apply_updates(params, updates)
        assert new.dtype == jnp.bfloat16 and np.any(new < 1) and np.any(new == 1)


def test_guard_inside_takes_wider_gradients():
    tx = ao.stochastic_rounding(optax.apply_if_finite(ao.adamax(1e-3), 5))
    params = jnp.ones(3, jnp.bfloat16)
    state = tx.init(params)
    skipped, state = tx.update(jnp.full(3, jnp.nan), state, params)
    assert skipped.dtype == params.dtype and not skipped.any()
    updates, state = tx.update(jnp.ones(3), state, params)
    assert updates.dtype == params.dtype


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
    stochastic = train(ao.stochastic_rounding(adamax), "bfloat16")
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
    tx = wrapper()
    params = {"a": jnp.ones(3, jnp.bfloat16)}
    with pytest.raises(ValueError, match=message):
        tx.update(updates, tx.init(params), params)


@pytest.mark.parametrize("seed", [3, np.uint32(3), np.array(3), jnp.array(3)])
def test_seeds_of_every_kind(seed):
    assert wrapper(seed).init({}) == wrapper(3).init({}) != wrapper(4).init({})
