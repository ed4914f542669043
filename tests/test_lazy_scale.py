"""The lazily scaled norm: exact, and in range for ever."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamax_optax._lazy_scale import decay_scale

SCALES = st.floats(0.5, 2.0, exclude_max=True, width=32)
DECAYS = st.floats(0.0, 1.0, exclude_max=True, width=32)


@hypothesis.given(SCALES, DECAYS)
def test_product_is_the_decay_and_the_scale_stays_in_range(scale, b2):
    new, quarterings = decay_scale(jnp.float32(scale), b2)
    assert new.dtype == jnp.float32 and quarterings.dtype == jnp.int32
    assert 0.5 <= new < 2.0
    assert quarterings >= 0
    # s' 4^-q = β2 s, with the one rounding of that product.
    decayed = np.float32(scale) * np.maximum(np.float32(b2), np.float32(2.0**-64))
    assert np.float64(new) * 4.0 ** -float(quarterings) == decayed


def test_quarters_once_in_a_while():
    def step(scale, _):
        scale, quarterings = decay_scale(scale, 0.999)
        return scale, quarterings

    _, quarterings = jax.lax.scan(step, jnp.ones([]), length=10_000)
    # ln 4 / -ln 0.999 = 1385.6 steps between two.
    np.testing.assert_allclose(quarterings.sum(), 10_000 / 1385.6, atol=1)
    assert quarterings.max() == 1


@hypothesis.settings(max_examples=20)
@hypothesis.given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 0.9, 0.999]))
def test_lazy_norm_equals_the_norm(seed, b2):
    # v is stored exactly here: all that differs is the rounding of s, one a step.
    magnitudes = np.random.default_rng(seed).exponential(size=300) ** 4 + 1e-8

    def step(carry, magnitude):
        v, scale = carry
        scale, quarterings = decay_scale(scale, b2)
        v = jnp.maximum(v * 4.0 ** -quarterings.astype(jnp.float32), magnitude / scale)
        return (v, scale), v * scale

    start = (jnp.zeros([]), jnp.ones([]))
    _, lazy = jax.lax.scan(step, start, jnp.asarray(magnitudes, jnp.float32))
    u, plain = 0.0, []
    for magnitude in magnitudes:
        u = max(b2 * u, magnitude)
        plain.append(u)
    np.testing.assert_allclose(lazy, plain, rtol=300 * 2.0**-24)


@pytest.mark.usefixtures("x64")
def test_wider_hyperparameter_does_not_widen_the_scale():
    new, _ = decay_scale(jnp.float32(1.0), jnp.asarray(0.999, jnp.float64))
    assert new.dtype == jnp.float32
