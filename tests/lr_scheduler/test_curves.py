"""The closed forms, against other ways to the same numbers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamax_optax._checks import as_float
from adamax_optax.lr_scheduler import _curves

COUNTS = np.arange(300)


@pytest.mark.parametrize(
    ("gamma", "k"), [(0.9999, 100_000), (0.999, 20_000), (1.0001, 50_000), (0.1, 30)]
)
def test_a_power_in_float32_is_as_exact_as_in_float64(gamma, k):
    expected = gamma**k
    assert _curves.geometric(gamma, k) == pytest.approx(expected, rel=1e-12)
    compiled = jax.jit(lambda k: _curves.geometric(gamma, k, xp=jnp))
    np.testing.assert_allclose(compiled(jnp.int32(k)), expected, rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 1e-50])
def test_powers_of_zero_and_of_what_float32_holds_for_zero(gamma):
    powers = _curves.geometric(gamma, jnp.arange(3), xp=jnp)
    np.testing.assert_array_equal(powers, [1.0, 0.0, 0.0])
    powers = _curves.geometric(gamma, np.arange(3))
    np.testing.assert_allclose(powers, [1.0, gamma, gamma**2], rtol=1e-12)


@pytest.mark.parametrize("xp", [np, jnp])
@pytest.mark.parametrize("period", [1, 2, 7, 41])
def test_the_cosine_is_exactly_zero_and_one_where_it_should_be(period, xp):
    values = np.asarray(_curves.half_cosine(xp.asarray(COUNTS), period, xp=xp))
    assert np.all(values[period :: 2 * period] == 0)
    np.testing.assert_allclose(values[:: 2 * period], 1, rtol=2e-7)
    expected = (1 + np.cos(np.pi * COUNTS / period)) / 2
    np.testing.assert_allclose(values, expected, rtol=0, atol=3e-7)


@pytest.mark.parametrize("xp", [np, jnp])
@pytest.mark.parametrize(("T_0", "T_mult"), [(1, 1), (7, 1), (1, 2), (3, 3), (5, 10)])
def test_restarts_are_those_of_counting(T_0, T_mult, xp):
    since, until, expected = 0, T_0, []
    for _ in COUNTS:
        expected.append((since, until))
        since += 1
        if since == until:
            since, until = 0, until * T_mult
    T_cur, T_i = _curves.warm_restart(xp.asarray(COUNTS), T_0, T_mult, xp=xp)
    np.testing.assert_array_equal(T_cur, [entry[0] for entry in expected])
    np.testing.assert_array_equal(
        np.broadcast_to(T_i, COUNTS.shape), [entry[1] for entry in expected]
    )


def test_restarts_reach_to_the_last_count():
    last = np.iinfo(np.int32).max
    T_cur, T_i = _curves.warm_restart(jnp.int32(last), 1, 2, xp=jnp)
    # Cycle n starts at 2^n - 1, so this is the start of cycle 31.
    assert (float(T_cur), float(T_i)) == (0.0, 2.0**31)


@pytest.mark.parametrize(("up", "down"), [(3, 5), (4, None), (7, 0), (2.5, 1.25)])
def test_a_cycle_rises_and_falls(up, down):
    sizes = _curves.cycle_sizes(up, down)
    total = up + (up if down is None else down)
    scale = _curves.cycle_scale("triangular", 1.0, None, "cycle")
    for t in range(40):
        into = math.fmod(t, total)
        expected = into / up if into <= up else (total - into) / (total - up)
        value = _curves.cyclic(t, 1.0, 3.0, *sizes, scale)
        assert value == pytest.approx(1 + 2 * expected, rel=1e-12)


def test_one_number():
    for value in (2, 2.0, np.float16(2), np.array([[2]]), jnp.array(2, jnp.bfloat16)):
        assert as_float("x", value) == 2.0
    for value in ("2", None, [2.0], 2j, np.zeros(0)):
        with pytest.raises(TypeError, match="x must be one number, got"):
            as_float("x", value)
