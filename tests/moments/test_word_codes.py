"""The 16-bit word: what it holds, how far off, and within which bound."""

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

import adamax_optax as ao
from tests.moments.coding import B1, B2, decoded, encoded

BOUND = (1 - B1) / (1 - B1 / B2)


def there_and_back(m, u, *betas):
    """Return m / u and u as the word holds them, at scale 1."""
    state = encoded(m, u, "uint16", *betas)
    assert [code.dtype for code in state.codes] == ["uint16"]
    assert state.scale == 1
    mean, norm = decoded(state, *betas)
    return mean / norm, norm


@pytest.mark.parametrize(
    ("b1", "b2", "bound"),
    [
        (B1, B2, BOUND),
        (jnp.float32(B1), jnp.float32(B2), BOUND),
        (0.9, np.nextafter(0.9, 1), 64.0),
        (jnp.float32(0.9), jnp.float32(0.5), 64.0),  # not known before it runs
    ],
)
def test_the_largest_ratio_is_its_bound(b1, b2, bound):
    ratio, _ = there_and_back([1e30, -1e30], 1.0, b1, b2)
    np.testing.assert_allclose(ratio, [bound, -bound], rtol=1e-6)


@pytest.mark.parametrize(("b1", "b2"), [(0.9, 0.9), (0.99, 0.9), (0.0, 0.0)])
def test_needs_b1_below_b2(b1, b2):
    with pytest.raises(ValueError, match=f"b1 < b2, got b1={b1}, b2={b2}.*bounded"):
        ao.adamax(b1=b1, b2=b2, state_dtype=jnp.uint16)
    ao.adamax(b1=jnp.asarray(b1), b2=b2, state_dtype=jnp.uint16)


@hypothesis.given(st.floats(2.0**-28, 2.0**35, width=32))
def test_norm_is_within_an_eighth(u):
    _, stored = there_and_back(0.0, u)
    assert abs(stored / np.float64(np.float32(u)) - 1) < 0.12


@hypothesis.given(st.floats(-1.0, 1.0, width=32), st.floats(-20, 20))
def test_ratio_has_no_bias_keeps_its_sign_and_its_bound(part, exponent):
    size = 4096
    _, u = there_and_back(0.0, 2.0**exponent)  # a norm that the code holds exactly
    ratio = part * BOUND
    stored, _ = there_and_back(np.full(size, ratio * u), u)
    assert np.all(stored * np.sign(ratio) >= 0)
    assert np.all(np.abs(stored) <= BOUND * (1 + 1e-6))
    # A step of the code is R/3952 near 0 and 8R/247 at the end.
    step = BOUND * max(1 / 3952, abs(part) / 8 + 1 / 247)
    assert np.all(np.abs(stored - ratio) <= step)
    assert abs(stored.mean() - ratio) <= 5 * step / 2 / np.sqrt(size) + 1e-6


@pytest.mark.parametrize(
    ("gradient", "expected"),
    [(jnp.inf, BOUND), (-jnp.inf, -BOUND), (1e30, BOUND), (-1e30, -BOUND)],
)
def test_beyond_the_range_saturates(gradient, expected):
    ratio, _ = there_and_back(gradient, abs(gradient))
    assert np.sign(ratio) == np.sign(expected)
    assert abs(ratio) <= BOUND * (1 + 1e-6)


def test_not_a_number_stays_visible():
    ratio, _ = there_and_back(jnp.nan, jnp.nan)
    assert np.isnan(ratio)
