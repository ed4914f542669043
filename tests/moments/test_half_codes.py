"""m and u in bfloat16 and float16."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from tests.moments.coding import decoded, encoded

FORMS = ["bfloat16", "float16"]


def there_and_back(form, m, u):
    """Return m and u as the codes hold them, at scale 1."""
    state = encoded(m, u, form)
    assert [code.dtype for code in state.codes] == [form, form]
    assert state.scale == 1
    return decoded(state)


@pytest.mark.parametrize("form", FORMS)
@hypothesis.given(st.floats(-25, 30))
def test_norm_is_within_half_a_percent(form, exponent):
    u = 2.0**exponent
    _, stored = there_and_back(form, 0.0, u)
    assert abs(stored / u - 1) <= 2.0**-8


@pytest.mark.parametrize("form", FORMS)
@hypothesis.given(st.floats(-20, 28), st.sampled_from([1.0, -1.0]))
def test_mean_has_no_bias_and_keeps_its_sign(form, exponent, sign):
    size = 4096
    m = np.float32(sign * 2.0**exponent)
    stored, _ = there_and_back(form, np.full(size, m), np.ones(size))
    assert np.all(stored * sign > 0)
    relative = stored / np.float64(m) - 1
    assert np.all(np.abs(relative) < 2.0**-7)
    # float16 rounds the root without bias, and the square of that is biased by its
    # variance, at most (2^-11)^2 / 4 of m.
    spread = 2.0**-7 / 2 / np.sqrt(size)
    assert abs(relative.mean()) <= 5 * spread + 2.0**-24


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("u", [0.0, 1e-45, 1e-30, 1e38, np.inf])
def test_norm_is_never_zero_or_infinite(form, u):
    _, stored = there_and_back(form, 0.0, u)
    assert 0 < stored < np.inf
