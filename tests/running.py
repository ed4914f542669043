"""Run a transformation over recorded gradients."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

# The forms of the state, for what takes a program of its own in each. `make test` tries
# the two ends, `make test-all` those between them too.
FORMS = [
    None,
    pytest.param("bfloat16", marks=pytest.mark.slow),
    pytest.param("float16", marks=pytest.mark.slow),
    "uint16",
]


@functools.lru_cache(maxsize=64)
def _runner(tx):
    """Return the compiled loop of one transformation, kept for the next call."""

    def step(carry, gradient):
        params, state = carry
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    @jax.jit
    def run(params, gradients):
        (_, state), history = jax.lax.scan(step, (params, tx.init(params)), gradients)
        return history, state

    return run


def trajectory(
    tx: optax.GradientTransformation, params: Any, gradients: Any
) -> tuple[Any, Any]:
    """Apply a transformation step by step inside one `lax.scan`.

    Args:
      tx: The transformation, complete with learning rate.
      params: A tree of arrays.
      gradients: The same tree with a leading axis of steps.

    Returns:
      The parameters after each step as NumPy arrays with a leading axis of steps,
      and the last state.
    """
    history, state = _runner(tx)(
        jax.tree.map(jnp.asarray, params), jax.tree.map(jnp.asarray, gradients)
    )
    return jax.tree.map(np.asarray, history), state


def random_gradients(
    shape: tuple[int, ...], steps: int = 60, seed: int = 0
) -> np.ndarray:
    """Return float64 gradients of mixed size, an eighth of them exactly zero.

    None is so small that a weight decay would outweigh it: such a coordinate swings
    about 0 at full step size, and rounding errors grow with every swing.
    """
    rng = np.random.default_rng(seed)
    gradients = rng.normal(size=(steps, *shape)) * 10.0 ** rng.uniform(-1, 1, shape)
    return gradients * (rng.random((steps, *shape)) > 0.125)
