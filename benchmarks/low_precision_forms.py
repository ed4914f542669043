"""The forms of state that are compared, and how far they drift from float64.

They are the package's own and the naive one, which anybody would write first: m and u
stored in bfloat16, with the arithmetic in float32.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamax_optax as ao

B1, B2, EPS = 0.9, 0.999, 1e-8  # the defaults of `ao.adamax`

# From a learning rate, and from b1 and b2 as keywords, if they vary.
Optimizer = Callable[..., optax.GradientTransformation]


class NaiveState(NamedTuple):
    """m and u as they are, rounded to bfloat16 after each step."""

    mu: optax.Updates
    nu: optax.Updates


def naive_infinity_norm() -> optax.GradientTransformation:
    """g -> m / u with the state stored in bfloat16 and the arithmetic in float32."""

    def init_fn(params: optax.Params) -> NaiveState:
        zeros = jax.tree.map(lambda p: jnp.zeros_like(p, dtype=jnp.bfloat16), params)
        return NaiveState(zeros, zeros)

    def update_fn(updates, state, params=None):
        del params
        wide = jax.tree.map(lambda x: x.astype(jnp.float32), state)
        mu = jax.tree.map(lambda m, g: B1 * m + (1 - B1) * g, wide.mu, updates)
        nu = jax.tree.map(
            lambda u, g: jnp.maximum(B2 * u, jnp.abs(g) + EPS), wide.nu, updates
        )
        state = jax.tree.map(_bfloat16, NaiveState(mu, nu))
        stored = jax.tree.map(lambda x: x.astype(jnp.float32), state)
        return jax.tree.map(jnp.divide, stored.mu, stored.nu), state

    return optax.GradientTransformation(init_fn, update_fn)


def _bfloat16(x: jax.Array) -> jax.Array:
    # `reduce_precision`, since a compiler may skip a conversion there and back.
    return jax.lax.reduce_precision(x, 8, 7).astype(jnp.bfloat16)


def naive_adamax(learning_rate: Any) -> optax.GradientTransformation:
    """Adamax with the naive state."""
    return optax.chain(
        naive_infinity_norm(),
        ao.scale_by_bias_correction(B1),
        optax.scale_by_learning_rate(learning_rate),
    )


def _form(state_dtype: Any) -> Optimizer:
    return functools.partial(ao.adamax, state_dtype=state_dtype)


NAIVE = "naive bfloat16"
FORMS: dict[str, Optimizer] = {
    "float32": _form(None),
    "bfloat16": _form(jnp.bfloat16),
    "float16": _form(jnp.float16),
    "uint16": _form(jnp.uint16),
    NAIVE: naive_adamax,
}


def state_bytes(optimizer: Optimizer, params: optax.Params) -> dict[str, Any]:
    """Count the bytes of the state that `init` allocates."""
    tx = optimizer(1e-3)
    state = tx.init(params)
    # Of each array like a parameter; the others are counts, keys and scales.
    moments = optax.tree_utils.tree_map_params(
        tx, lambda x: x.nbytes, state, transform_non_params=lambda _: 0
    )
    held = sum(jax.tree.leaves(moments))
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    return {
        "parameters": size,
        "total": total,
        "besides": total - held,
        "per_parameter": held / size,
    }


class Reference:
    """Algorithm 2 of the paper in float64, with a step of size 1."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.step = 0
        self.m, self.u, self.displacement = np.zeros((3, *shape))

    def follow(self, gradients: np.ndarray) -> None:
        """Take one step for each row of gradients."""
        for g in gradients.astype(np.float64):
            self.step += 1
            self.m = B1 * self.m + (1 - B1) * g
            self.u = np.maximum(B2 * self.u, np.abs(g) + EPS)
            self.displacement -= self.m / ((1 - B1**self.step) * self.u)


class Follower:
    """One form of state on the same gradients."""

    def __init__(self, optimizer: Optimizer, shape: tuple[int, ...]) -> None:
        tx = optimizer(1.0)
        self.displacement = np.zeros(shape)
        self.u = np.zeros(shape)  # the norm that is stored, decoded
        self._state = tx.init(jnp.zeros(shape))

        def step(state, gradient):
            update, state = tx.update(gradient, state)
            return state, update

        @jax.jit
        def steps(state, gradients):
            state, updates = jax.lax.scan(step, state, gradients)
            naive = isinstance(state[0], NaiveState)
            moments = state if naive else ao.interop.cast_state(state, None)
            return state, updates, optax.tree_utils.tree_get(moments, "nu")

        self._steps = steps

    def follow(self, gradients: np.ndarray) -> None:
        """Take one step for each row of gradients."""
        self._state, updates, u = self._steps(self._state, gradients)
        self.displacement += np.asarray(updates, np.float64).sum(0)
        self.u = np.asarray(u, np.float64)


def measure_noise(
    last_sizes: dict[str, float], *, steps: int, size: int, points: int
) -> dict[str, Any]:
    """Follow noise with every form and compare with float64.

    Args:
      last_sizes: By name, to which size the gradients shrink from 1, by the same
        factor at each step. Every kind of noise is a row of one parameter.
      steps: How many, a multiple of `points`.
      size: Elements of a row.
      points: How often to look at u on the way.

    Returns:
      For each kind of noise the steps looked at and, for each form, the relative error
      of u (median, 95th percentile and maximum over the elements after the last step,
      the maximum over all elements and points, the median at each point) and of the
      displacement.
    """
    rng = np.random.default_rng(4)
    shape = (len(last_sizes), size)
    reference = Reference(shape)
    followers = {name: Follower(form, shape) for name, form in FORMS.items()}
    errors: dict[str, list[np.ndarray]] = {name: [] for name in FORMS}
    stretch = steps // points
    looked_at = [stretch * (i + 1) for i in range(points)]
    for last in looked_at:
        step = np.arange(last - stretch + 1, last + 1)[:, None, None]
        sizes = np.array([*last_sizes.values()])[:, None] ** (step / steps)
        gradients = rng.standard_normal((stretch, *shape)) * sizes
        gradients = gradients.astype(np.float32)
        reference.follow(gradients)
        for name, follower in followers.items():
            follower.follow(gradients)
            errors[name].append(np.abs(follower.u / reference.u - 1))

    def summary(form: str, row: int) -> dict[str, Any]:
        u = np.array(errors[form])[:, row]
        exact = reference.displacement[row]
        moved = followers[form].displacement[row]
        return {
            "u_median": float(np.median(u[-1])),
            "u_p95": float(np.percentile(u[-1], 95)),
            "u_max": float(u[-1].max()),
            "u_worst": float(u.max()),
            "displacement": float(_rms(moved - exact) / _rms(exact)),
            "curve": [float(x) for x in np.median(u, 1)],
        }

    return {
        kind: {
            "steps": looked_at,
            "size": size,
            "last_size": last_size,
            "forms": {form: summary(form, row) for form in FORMS},
        }
        for row, (kind, last_size) in enumerate(last_sizes.items())
    }


def _rms(x: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(x * x))
