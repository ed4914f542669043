"""The 16-bit word: what it holds, how far off, and within which bound."""

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

import adamax_optax as ao
from tests.moments.coding import decoded, encoded

# How much smaller a stored u can be: below 1.1175, 1 + 1/4 rounds down to 1.
SLACK = 1.1175
CAP = 1024.0
# The codes of |m| / u, relative to the largest: from 4, 16 and then 8 steps in each
# octave of x, which begins at 1.
_SIXTEENTHS = np.cumsum([0] + [4] * 24 + [1] * 88 + [2] * 15)
_X = 2.0 ** (_SIXTEENTHS // 16) * (1 + _SIXTEENTHS % 16 / 16)
LEVELS = SLACK * (_X - 1) / (_X[-1] - 1)
WIDEST = np.diff(LEVELS).max()


def there_and_back(m, u):
    """Return m / u and u as the word holds them at scale 1, and the bound."""
    state = encoded(m, u, "uint16")
    assert [code.dtype for code in state.codes] == ["uint16"]
    assert state.scale == 1
    mean, norm = decoded(state)
    return mean / norm, norm, float(state.bound[0])


def test_cast_takes_the_bound_from_the_data():
    ratio, _, bound = there_and_back([0.5, -0.25, 0.0], 1.0)
    assert bound == pytest.approx(0.5)
    np.testing.assert_allclose(ratio, [0.5, -0.25, 0.0], atol=WIDEST * bound)


def test_larger_ratios_than_the_cap_saturate():
    ratio, _, bound = there_and_back([1e30, -1e30], 1.0)
    assert bound == CAP
    np.testing.assert_allclose(ratio, [SLACK * CAP, -SLACK * CAP], rtol=1e-6)


@pytest.mark.parametrize(("b1", "b2"), [(0.9, 0.9), (0.99, 0.9), (0.0, 0.0)])
def test_takes_any_betas(b1, b2):
    random = np.random.default_rng(0)
    gradients = jnp.asarray(random.normal(size=(30, 2000)) + 0.5, jnp.float32)

    def mean_steps(state_dtype):
        link = ao.scale_by_infinity_norm(b1, b2, state_dtype=state_dtype)
        state, steps = link.init(gradients[0]), []
        for g in gradients:
            update, state = link.update(g, state)
            steps.append(update.mean())
        return np.array(steps)

    np.testing.assert_allclose(mean_steps("uint16"), mean_steps(None), rtol=0.05)


@hypothesis.given(st.floats(2.0**-28, 2.0**35, width=32))
def test_norm_is_within_an_eighth(u):
    _, stored, _ = there_and_back(0.0, u)
    assert abs(stored / np.float64(np.float32(u)) - 1) < 0.12


def test_ratios_have_128_sizes():
    assert len(LEVELS) == 128 and LEVELS[-1] == SLACK
    np.testing.assert_allclose(SLACK / LEVELS[1], 45052)
    words = (np.arange(128) << 8).astype(np.uint16)
    state = ao.scale_by_infinity_norm(state_dtype="uint16").init(jnp.zeros(128))
    state = state._replace(codes=(jnp.asarray(words),), bound=jnp.ones(1))
    mean, norm = decoded(state)
    np.testing.assert_allclose(mean / norm, LEVELS, rtol=1e-6)


@hypothesis.given(st.floats(-1.0, 1.0, width=32), st.floats(-20, 20))
def test_ratio_has_no_bias_keeps_its_sign_and_its_bound(part, exponent):
    size = 4096
    _, u, _ = there_and_back(0.0, 2.0**exponent)  # a norm that the code holds exactly
    # The first element, which sets the bound, is left out below.
    ratios = np.full(size, part)
    ratios[0] = 1.0
    stored, _, bound = there_and_back(ratios * u, u)
    stored = stored[1:]
    assert bound == pytest.approx(1)
    assert np.all(stored * np.sign(part) >= 0)
    assert np.all(np.abs(stored) <= SLACK * (1 + 1e-6))
    i = np.clip(np.searchsorted(LEVELS, abs(part)), 1, 127)
    step = (LEVELS[i] - LEVELS[i - 1]) * 1.0001
    assert np.all(np.abs(stored - part) <= step)
    assert abs(stored.mean() - part) <= 5 * step / 2 / np.sqrt(size) + 1e-6


@pytest.mark.parametrize("gradient", [jnp.inf, -jnp.inf, 1e30, -1e30])
def test_beyond_the_range_saturates(gradient):
    ratio, _, bound = there_and_back([gradient, 1.0], [abs(gradient), 1.0])
    assert np.sign(ratio[0]) == np.sign(gradient)
    assert abs(ratio[0]) <= SLACK * bound * (1 + 1e-6)


@pytest.mark.parametrize(("moment", "bound"), [(jnp.inf, 1.0), (jnp.nan, 0.5)])
def test_what_is_not_finite_does_not_set_the_bound(moment, bound):
    state = encoded([moment, 0.5], [1.0, 1.0], "uint16")
    assert state.bound[0] == pytest.approx(bound)


@pytest.mark.parametrize("state_dtype", ["bfloat16", "float16", "uint16"])
@pytest.mark.parametrize("sign", [1, -1])
def test_infinity_alone_in_its_leaf_moves_as_a_large_gradient(sign, state_dtype):
    # After the cast to uint16 its updates were 0.
    state = encoded([sign * jnp.inf], [jnp.inf], state_dtype)
    link = ao.scale_by_infinity_norm(state_dtype=state_dtype)
    update, _ = link.update(jnp.zeros(1), state)
    assert 0.3 < sign * update[0] < 1.2


def test_not_a_number_stays_visible():
    ratio, _, _ = there_and_back(jnp.nan, jnp.nan)
    assert np.isnan(ratio)


def test_fresh_state_is_cast_to_a_fresh_one():
    state = ao.interop.cast_state(
        ao.scale_by_infinity_norm().init(jnp.ones(3)), "uint16"
    )
    np.testing.assert_array_equal(state.codes[0], 0)
    _, state = ao.scale_by_infinity_norm(state_dtype="uint16").update(
        jnp.ones(3), state
    )
    assert state.bound[0] == pytest.approx(0.1)
