"""Rounding float32 to fewer bits, and the noise that rounds at random."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamax_optax._rounding import (
    from_bits,
    leaf_key,
    leaf_keys,
    next_key,
    noise,
    power_of_two,
    round_to_nearest,
    to_bfloat16_at_random,
    to_bits,
    to_float16_at_random,
)
from tests.moments.coding import NOT_A_NUMBER

# --- Rounding -------------------------------------------------------------------------

HALF = [jnp.bfloat16, jnp.float16]


def round_at_random(x, dtype, random):
    """Round float32 of either sign."""
    if dtype == jnp.bfloat16:
        return to_bfloat16_at_random(x, random)
    return to_float16_at_random(jnp.abs(x), x, random)


NORMAL = st.floats(2.0**-13, 2.0**14, width=32)


@hypothesis.given(st.floats(width=32, allow_nan=False))
def test_bits_there_and_back(x):
    assert from_bits(to_bits(jnp.float32(x))) == np.float32(x)


@pytest.mark.parametrize("exponent", [-126, -1, 0, 5, 127])
def test_power_of_two(exponent):
    assert power_of_two(jnp.int32(exponent)) == 2.0**exponent


@pytest.mark.parametrize("dtype", HALF)
@hypothesis.given(NORMAL, st.sampled_from([1.0, -1.0]))
def test_random_rounding_takes_a_neighbour_and_has_no_bias(dtype, x, sign):
    size = 4096
    x = np.float32(sign * x)
    random = noise(jnp.zeros(size), leaf_key(jnp.uint32(0), 0))
    rounded = round_at_random(jnp.full(size, x), dtype, random)
    values = np.asarray(rounded, np.float64)
    # Neighbours: within one spacing of the dtype at x, on the two sides.
    spacing = 2.0 ** (np.floor(np.log2(abs(x))) - jnp.finfo(dtype).nmant)
    assert len(np.unique(values)) <= 2
    assert np.all(np.abs(values - x) < spacing)
    # The mean is x, within five standard errors of a coin's.
    assert abs(values.mean() - x) <= 5 * spacing / 2 / np.sqrt(size)


@pytest.mark.parametrize("dtype", HALF)
@hypothesis.given(NORMAL)
def test_representable_numbers_stay(dtype, x):
    exact = jnp.asarray(x, dtype)
    for random in [0, 2**32 - 1]:
        rounded = round_at_random(
            exact.astype(jnp.float32), dtype, jnp.asarray(random, jnp.uint32)
        )
        assert rounded == exact


@hypothesis.given(st.floats(2.0**-30, 2.0**-14, width=32), st.sampled_from([1, -1]))
def test_random_rounding_has_no_bias_among_subnormal_numbers(x, sign):
    size, spacing = 4096, 2.0**-24
    x = np.float32(sign * x)
    random = noise(jnp.zeros(size), leaf_key(jnp.uint32(0), 0))
    values = np.asarray(round_at_random(jnp.full(size, x), jnp.float16, random))
    values = values.astype(np.float64)
    assert np.all(np.abs(values - x) < spacing) and len(np.unique(values)) <= 2
    assert abs(values.mean() - x) <= 5 * spacing / 2 / np.sqrt(size)
    assert np.all(np.signbit(values) == (sign < 0))


@pytest.mark.parametrize("random", [0, 1 << 31, 2**32 - 1])
def test_every_float16_rounds_to_itself(random):
    codes = np.arange(2**16, dtype=np.uint16).view(np.float16)
    codes = codes[np.abs(codes) <= 2.0**15]
    x = jnp.asarray(codes).astype(jnp.float32)
    again = to_float16_at_random(jnp.abs(x), x, jnp.full(x.shape, random, "uint32"))
    np.testing.assert_array_equal(
        np.asarray(again).view(np.uint16), codes.view(np.uint16)
    )


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("random", [0, 1 << 31, 2**32 - 1])
def test_random_rounding_keeps_every_not_a_number(dtype, random):
    x = from_bits(jnp.asarray(NOT_A_NUMBER))
    rounded = round_at_random(x, dtype, jnp.full(x.shape, random, jnp.uint32))
    assert np.isnan(rounded.astype(jnp.float32)).all()


@pytest.mark.parametrize("dtype", HALF)
@hypothesis.given(NORMAL)
def test_nearest(dtype, x):
    assert round_to_nearest(jnp.float32(x), dtype) == jnp.asarray(x, dtype)


# --- The noise: uniform, without memory, and the same however the array is cut --------

SIZE = 1 << 16


def uniform(key, shape=(SIZE,)):
    """Return the noise as numbers in [0, 1)."""
    return np.asarray(noise(jnp.zeros(shape), key)).astype(np.float64) / 2**32


def keys(count):
    """Return the keys of the first steps of leaf 0."""
    key, found = jnp.uint32(0), []
    for _ in range(count):
        key = next_key(key)
        found.append(leaf_key(key, 0))
    return found


def test_mean_variance_and_every_bit():
    for key in keys(4):
        x = uniform(key)
        np.testing.assert_allclose(x.mean(), 0.5, atol=5 / np.sqrt(12 * SIZE))
        np.testing.assert_allclose(x.var(), 1 / 12, rtol=0.02)
        bits = (np.asarray(noise(jnp.zeros(SIZE), key))[:, None] >> np.arange(32)) & 1
        np.testing.assert_allclose(bits.mean(axis=0), 0.5, atol=2.5 / np.sqrt(SIZE))


def test_neighbours_steps_and_leaves_are_uncorrelated():
    steps = keys(3)
    x = uniform(steps[0])
    others = [
        np.roll(x, 1),
        np.roll(x, 2),
        uniform(steps[1]),
        uniform(steps[2]),
        uniform(leaf_key(next_key(jnp.uint32(0)), 1)),
    ]
    for other in others:
        assert abs(np.corrcoef(x, other)[0, 1]) < 5 / np.sqrt(SIZE)


def test_keys_of_leaves_depend_on_their_paths():
    one, two = {"a": [1.0], "b": None}, {"a": None, "b": [1.0]}
    both = leaf_keys(jnp.uint32(0), {"a": [1.0], "b": [1.0]})
    assert both.shape == (2,) and both[0] != both[1]
    assert leaf_keys(jnp.uint32(0), one) == both[:1]
    assert leaf_keys(jnp.uint32(0), two) == both[1:]
    assert np.all(leaf_keys(jnp.uint32(1), two) != both)
    assert leaf_keys(jnp.uint32(0), {}).shape == (0,)


def test_one_place_over_the_steps():
    x = np.array([uniform(key, (1,))[0] for key in keys(2000)])
    np.testing.assert_allclose(x.mean(), 0.5, atol=5 / np.sqrt(12 * 2000))
    assert abs(np.corrcoef(x[1:], x[:-1])[0, 1]) < 5 / np.sqrt(2000)


def test_place_counts_in_row_major_order():
    key = leaf_key(jnp.uint32(7), 3)
    flat = noise(jnp.zeros(60), key)
    np.testing.assert_array_equal(noise(jnp.zeros((3, 4, 5)), key).reshape(-1), flat)
    assert noise(jnp.zeros(()), key) == flat[0]
    assert noise(jnp.zeros((0, 3)), key).shape == (0, 3)


def test_same_on_every_sharding():
    devices = np.array(jax.devices())
    mesh = jax.sharding.Mesh(devices, ("x",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    shape, key = (8 * len(devices), 6), jnp.uint32(1)
    sharded = jax.jit(lambda key: noise(jnp.zeros(shape), key), out_shardings=rows)(key)
    np.testing.assert_array_equal(sharded, noise(jnp.zeros(shape), key))
