"""Against the paper's Algorithm 2, run in float64 NumPy."""

import chex
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamax_optax as ao
from tests.reference import adamax_trajectory
from tests.running import random_gradients, trajectory

SETTINGS = {
    "defaults": {},
    "large lr": dict(lr=0.1),
    "betas": dict(b1=0.5, b2=0.9),
    "no mean": dict(b1=0.0),
    # With b2 = 0 a zero gradient divides by ε alone: keep it large enough to compare.
    "no memory": dict(b2=0.0, eps=0.1),
    "b1 above b2": dict(b1=0.99, b2=0.9),
    "no epsilon": dict(eps=0.0),
    "large epsilon": dict(eps=0.1),
    "epsilon outside": dict(eps=0.0, eps_outside=1e-3),
    "decay": dict(lr=0.01, weight_decay=0.1),
    "maximize": dict(lr=0.01, maximize=True),
    "decay and maximize": dict(lr=0.01, weight_decay=0.1, maximize=True),
}
WITHOUT_DECAY = [name for name in SETTINGS if "decay" not in name]


def ours(*, lr=2e-3, decoupled=False, weight_decay=0.0, **hyper):
    optimizer = ao.adamaxw if decoupled else ao.adamax
    return optimizer(lr, weight_decay=weight_decay, **hyper)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("setting", "decoupled"),
    [
        *((setting, False) for setting in SETTINGS),
        ("decay", True),
        ("decay and maximize", True),
        # Without decay it makes no difference.
        *(pytest.param(name, True, marks=pytest.mark.slow) for name in WITHOUT_DECAY),
    ],
)
@pytest.mark.parametrize(
    # In float32 each of the 60 steps may add half an ulp of a parameter, and an error
    # in m or u of a few ulps enters each step.
    ("dtype", "rtol", "atol"),
    [("float64", 1e-12, 1e-14), ("float32", 2e-6, 2e-7)],
)
@pytest.mark.parametrize("shape", [(3, 4), pytest.param((), marks=pytest.mark.slow)])
def test_trajectory(shape, dtype, rtol, atol, setting, decoupled):
    hyper = dict(SETTINGS[setting], decoupled=decoupled)
    gradients = random_gradients(shape).astype(dtype)
    params = np.random.default_rng(1).normal(size=shape).astype(dtype)
    expected = adamax_trajectory(params, gradients, **hyper)
    got, _ = trajectory(ours(**hyper), params, gradients)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("decoupled", [False, True])
def test_complex_trajectory(decoupled):
    hyper = dict(lr=0.01, weight_decay=0.1, decoupled=decoupled)
    gradients = random_gradients((5,)) + 1j * random_gradients((5,), seed=1)
    params = np.array([1, 1j, -1, -1j, 0.5 + 0.5j])
    expected = adamax_trajectory(params, gradients, **hyper)
    got, _ = trajectory(ours(**hyper), params, gradients)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_moments_of_half_precision_parameters_are_those_of_float32(dtype):
    # Gradients that shrink: the case in which a norm kept in bfloat16 stays 6.7 times
    # too large.
    steps = 3000
    noise = np.random.default_rng(0).normal(size=(steps, 8))
    shrinking = noise * np.logspace(0, -2, steps)[:, None]
    gradients = np.asarray(jnp.asarray(shrinking, dtype))
    _, state = trajectory(ao.adamax(1e-3), jnp.zeros(8, dtype), gradients)
    m, u = np.zeros(8), np.zeros(8)
    for g in gradients.astype(np.float64):
        m = 0.9 * m + 0.1 * g
        u = np.maximum(0.999 * u, np.abs(g) + 1e-8)
    chex.assert_trees_all_close(
        optax.tree_utils.tree_get(state, "mu"), m, rtol=1e-5, atol=1e-7
    )
    chex.assert_trees_all_close(optax.tree_utils.tree_get(state, "nu"), u, rtol=1e-4)
