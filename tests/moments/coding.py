"""Moments into codes and back, by the public way: the one place to change."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import adamax_optax as ao
from adamax_optax.moments import _reduced_norm

# NaN of every kind, as bits: quiet and signalling, all ones (what XLA's log makes on
# CPU), and NVIDIA's.
NOT_A_NUMBER = np.array(
    [
        0x7FC00000,
        0xFFC00000,
        0x7F800001,
        0xFF800001,
        0xFFFFFFFF,
        0x7FFFFFFF,
        0x7FBFFFFF,
    ],
    np.uint32,
)


@functools.cache
def _compiled(state_dtype):
    return jax.jit(lambda state: ao.interop.cast_state(state, state_dtype))


def cast(state: Any, state_dtype: Any) -> Any:
    """Return a state cast to another form, compiled once for all states alike."""
    return _compiled(state_dtype)(state)


def encoded(m: Any, u: Any, state_dtype: Any) -> Any:
    """Return the state that holds one leaf's moments in a reduced form."""
    m, u = np.broadcast_arrays(np.asarray(m, np.float32), np.asarray(u, np.float32))
    fresh: Any = ao.scale_by_infinity_norm().init(jnp.zeros(m.shape))
    wide = fresh._replace(mu=jnp.asarray(m), nu=jnp.asarray(u))
    return cast(wide, state_dtype)


def decoded(state: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return m and u of one leaf's reduced state, in float64."""
    wide = cast(state, None)
    return np.asarray(wide.mu, np.float64), np.asarray(wide.nu, np.float64)


def traced_leaf_steps() -> int:
    """Return how many kinds of leaves a reduced step has been traced for."""
    step_leaf: Any = _reduced_norm._step_leaf
    return step_leaf._cache_size()
