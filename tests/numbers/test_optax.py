"""Against optax.adamax, optax.adamaxw and optax.scale_by_adamax, where they agree."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamax_optax as ao
from tests.running import random_gradients, trajectory

# Optax's own adamax does not run under strict promotion.
pytestmark = pytest.mark.usefixtures("lenient_promotion")

HYPER = [
    {},
    dict(b1=0.5, b2=0.9),
    dict(b1=0.0),
    dict(eps=0.1),
]
PAIRS = [
    (ao.adamax, optax.adamax, {}),
    (ao.adamaxw, optax.adamaxw, {}),
    (ao.adamaxw, optax.adamaxw, dict(weight_decay=0.1)),
    (
        ao.adamaxw,
        optax.adamaxw,
        dict(weight_decay=0.1, mask={"w": True, "b": False}),
    ),
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("hyper", HYPER)
@pytest.mark.parametrize(("ours", "theirs", "decay"), PAIRS)
def test_same_numbers_within_a_few_ulps(ours, theirs, decay, hyper, dtype):
    gradients = {
        "w": random_gradients((3, 4)).astype(dtype),
        "b": random_gradients((4,), seed=1).astype(dtype),
    }
    params = jax.tree.map(lambda g: np.ones(g.shape[1:], dtype), gradients)
    got, _ = trajectory(ours(0.01, **hyper, **decay), params, gradients)
    expected, _ = trajectory(theirs(0.01, **hyper, **decay), params, gradients)
    ulp = np.finfo(dtype).eps
    for name in params:
        np.testing.assert_allclose(
            got[name], expected[name], rtol=4 * ulp, atol=4 * ulp
        )


@pytest.mark.parametrize("hyper", HYPER)
def test_scale_by_adamax(hyper):
    gradients = random_gradients((3, 4)).astype(np.float32)
    ours, theirs = ao.scale_by_adamax(**hyper), optax.scale_by_adamax(**hyper)
    state, other = ours.init(gradients[0]), theirs.init(gradients[0])
    for gradient in gradients:
        got, state = ours.update(gradient, state)
        expected, other = theirs.update(gradient, other)
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)


def test_coupled_decay_is_not_what_optax_has():
    # What optax.adamaxw calls weight_decay is another thing from MindSpore's and
    # PyTorch's, and by a wide margin.
    gradients = random_gradients((4,)).astype(np.float32)
    params = np.ones(4, np.float32)
    coupled, _ = trajectory(ao.adamax(0.01, weight_decay=0.1), params, gradients)
    decoupled, _ = trajectory(optax.adamaxw(0.01, weight_decay=0.1), params, gradients)
    assert np.abs(coupled - decoupled).max() > 0.05


@pytest.mark.parametrize("theirs", [optax.adamax, optax.adamaxw])
def test_bugs_of_optax_that_the_comparison_names(theirs):
    # If Optax mends one, docs/comparison.md must change: optax #1768 (for Adam, #1754),
    params = jnp.zeros(1, jnp.float16)
    for tx in (theirs(0.1), optax.adam(0.1)):
        update, _ = tx.update(params, tx.init(params), params)
        assert np.isnan(update[0])

    # and #1552.
    tx = theirs(0.1)
    params = jnp.zeros(1, jnp.bfloat16)
    _, state = tx.update(jnp.ones(1, jnp.bfloat16), tx.init(params), params)
    for _ in range(100):
        _, state = jax.jit(tx.update)(params, state, params)
    assert optax.tree_utils.tree_get(state, "nu")[0] == 1.0  # for ever, not 0.999^100
