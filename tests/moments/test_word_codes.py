"""The 16-bit word: what it holds, how far off, and within which bound."""

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from adamax_optax._rounding import leaf_key, noise
from adamax_optax.moments._word_codes import WordCodes, ratio_bound

B1, B2 = 0.9, 0.999
CODES = WordCodes(B1, B2)
BOUND = ratio_bound(B1, B2)
ONE = jnp.ones([])


def encode(m, u, random=None):
    """Return the word of moments at scale 1."""
    m, u = jnp.asarray(m, jnp.float32), jnp.asarray(u, jnp.float32)
    random = noise(m, jnp.uint32(0)) if random is None else random
    return CODES.encode(m, u, ONE, B1, B2, random)


def decode(codes):
    """Return m, u and m / u in float64."""
    m, u = CODES.moments(codes, ONE, B1, B2)
    ratio = CODES.ratio(codes, ONE, B1, B2)
    return tuple(np.asarray(x, np.float64) for x in (m, u, ratio))


def test_bound():
    np.testing.assert_allclose(BOUND, 0.1 / (1 - 0.9 / 0.999))
    np.testing.assert_allclose(
        ratio_bound(jnp.float32(B1), jnp.float32(B2)), BOUND, 1e-6
    )
    assert ratio_bound(0.9, np.nextafter(0.9, 1)) == 64.0
    assert ratio_bound(jnp.float32(0.9), jnp.float32(0.5)) == 64.0


@pytest.mark.parametrize(("b1", "b2"), [(0.9, 0.9), (0.99, 0.9), (0.0, 0.0)])
def test_needs_b1_below_b2(b1, b2):
    with pytest.raises(ValueError, match=f"b1={b1}, b2={b2}.*bounded"):
        WordCodes(b1, b2)
    WordCodes(jnp.asarray(b1), b2)  # not known before it runs


@hypothesis.given(st.floats(2.0**-28, 2.0**35, width=32))
def test_norm_is_within_an_eighth(u):
    _, stored, _ = decode(encode(0.0, u))
    assert abs(stored / np.float64(np.float32(u)) - 1) < 0.12


def test_words_there_and_back():
    # Every word but those that stand for no number decodes to moments that encode to
    # it. Its ratio is then exact up to float32's rounding, so it is put half a unit
    # above its code: noise 0 does not carry it on.
    words = jnp.arange(2**16, dtype=jnp.uint32).astype(jnp.uint16)
    words = words[(words & 0xFF) != 0xFF]
    m, u = CODES.moments((words,), ONE, B1, B2)
    middle = jnp.full(words.shape, 2**31, jnp.uint32)
    (again,) = CODES.encode(m, u, ONE, B1, B2, middle)
    nothing = (words & 0x7F00) == 0  # +0 and -0 are both 0
    np.testing.assert_array_equal(
        jnp.where(nothing, words & 0xFF, words), jnp.where(nothing, again & 0xFF, again)
    )


@hypothesis.given(st.floats(-1.0, 1.0, width=32), st.floats(-20, 20))
def test_ratio_has_no_bias_keeps_its_sign_and_its_bound(part, exponent):
    size = 4096
    u = decode(encode(0.0, 2.0**exponent))[1]  # a norm that the code holds exactly
    ratio = part * BOUND
    random = noise(jnp.zeros(size), leaf_key(jnp.uint32(1), 0))
    codes = encode(np.full(size, ratio * u), np.full(size, u), random)
    _, _, stored = decode(codes)
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
    _, _, ratio = decode(encode(gradient, abs(gradient)))
    assert np.sign(ratio) == np.sign(expected)
    assert abs(ratio) <= BOUND * (1 + 1e-6)


def test_not_a_number_stays_visible():
    _, _, ratio = decode(encode(jnp.nan, jnp.nan))
    assert np.isnan(ratio)
