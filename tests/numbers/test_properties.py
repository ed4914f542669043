"""Properties that hold for every gradient, by hypothesis."""

import functools

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamax_optax as ao
from tests.running import trajectory

STEPS, SIZE = 8, 4
FINITE = st.floats(-1e3, 1e3, width=32, allow_subnormal=False)
GRADIENTS = hnp.arrays(np.float32, (STEPS, SIZE), elements=FINITE)
PARAMS = np.linspace(-1, 1, SIZE, dtype=np.float32)
LR = 0.01
# XLA compiles every arrangement of loops on its own, and may or may not fuse a
# multiplication and an addition into one rounding.
ONE_ROUNDING = dict(rtol=1e-6, atol=1e-7)


PLAIN = ao.adamax(LR)
DECAY = ao.adamax(LR, weight_decay=0.1)
ASCENT = ao.adamax(LR, weight_decay=0.1, maximize=True)
NO_EPSILON = ao.adamax(LR, eps=0.0)


@functools.lru_cache
def _updates_fn(tx):
    def step(state, gradient):
        update, state = tx.update(gradient, state, jnp.asarray(PARAMS))
        return state, update

    return jax.jit(lambda gradients: jax.lax.scan(step, tx.init(PARAMS), gradients)[1])


def updates_of(tx, gradients):
    """Return the update of every step, shape (STEPS, SIZE), at fixed parameters."""
    return np.asarray(_updates_fn(tx)(gradients))


@hypothesis.given(GRADIENTS)
def test_bound_of_the_paper(gradients):
    # Section 7.1 states |Δ_t| ≤ α. Exactly: m_t = (1-β1) Σ β1^{t-i} g_i and
    # u_t ≥ β2^{t-i} |g_i|, so with q = β1/β2 < 1
    #   |m_t| / u_t ≤ (1-β1) Σ q^{t-i} = (1-β1) (1-q^t) / (1-q),
    # which the bias correction divides by 1-β1^t: 1 at t = 1, 1.009 at the most.
    t = np.arange(1, STEPS + 1)[:, None]
    q = 0.9 / 0.999
    bound = LR * (1 - 0.9) * (1 - q**t) / (1 - q) / (1 - 0.9**t)
    assert np.all(np.abs(updates_of(PLAIN, gradients)) <= bound * (1 + 1e-6))


@hypothesis.given(GRADIENTS, st.integers(-20, 20))
def test_scale_invariance(gradients, exponent):
    # A power of two scales m and u exactly, and cancels.
    scaled = gradients * np.float32(2.0**exponent)
    hypothesis.assume(np.all((scaled == 0) == (gradients == 0)))
    hypothesis.assume(np.all((scaled == 0) | (np.abs(scaled) > 1e-30)))
    hypothesis.assume(np.all((gradients == 0) | (np.abs(gradients) > 1e-30)))
    np.testing.assert_array_equal(
        updates_of(NO_EPSILON, gradients), updates_of(NO_EPSILON, scaled)
    )


@hypothesis.given(GRADIENTS)
def test_ascent_on_the_negated_gradient_is_descent(gradients):
    np.testing.assert_array_equal(
        updates_of(DECAY, gradients), updates_of(ASCENT, -gradients)
    )


@hypothesis.given(GRADIENTS, st.permutations(range(SIZE)))
def test_permutation_of_leaves(gradients, order):
    def split(array, order):
        return {f"p{place}": array[..., i] for place, i in enumerate(order)}

    plain, _ = trajectory(
        DECAY, split(PARAMS, range(SIZE)), split(gradients, range(SIZE))
    )
    permuted, _ = trajectory(DECAY, split(PARAMS, order), split(gradients, order))
    for place, i in enumerate(order):
        np.testing.assert_allclose(
            permuted[f"p{place}"], plain[f"p{i}"], **ONE_ROUNDING
        )


@hypothesis.given(GRADIENTS, st.integers(0, SIZE))
def test_split_into_two_leaves_equals_one(gradients, at):
    whole, _ = trajectory(DECAY, PARAMS, gradients)
    (left, right), _ = trajectory(
        DECAY, (PARAMS[:at], PARAMS[at:]), (gradients[:, :at], gradients[:, at:])
    )
    np.testing.assert_allclose(
        np.concatenate([left, right], axis=1), whole, **ONE_ROUNDING
    )


@hypothesis.settings(max_examples=20)
@hypothesis.given(GRADIENTS)
def test_jit_equals_eager(gradients):
    jitted, _ = trajectory(DECAY, PARAMS, gradients)
    params = jnp.asarray(PARAMS)
    state = DECAY.init(params)
    for gradient, expected in zip(gradients, jitted, strict=True):
        update, state = DECAY.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, update)
        np.testing.assert_allclose(params, expected, **ONE_ROUNDING)
