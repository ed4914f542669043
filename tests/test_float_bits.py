"""Rounding float32 to fewer bits."""

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from adamax_optax._float_bits import (
    from_bits,
    power_of_two,
    round_at_random,
    round_to_nearest,
    to_bits,
)
from adamax_optax._noise import leaf_key, noise

HALF = [jnp.bfloat16, jnp.float16]
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


@pytest.mark.parametrize("dtype", HALF)
@hypothesis.given(NORMAL)
def test_nearest(dtype, x):
    assert round_to_nearest(jnp.float32(x), dtype) == jnp.asarray(x, dtype)
