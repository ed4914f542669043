"""A net's parameters as PyTorch and as Flax lay them out, and runs over gradients.

Written out by hand, so that names and layouts do not come from what is tested.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

# In the order of construction, as PyTorch and MindSpore number them.
SHAPES: dict[str, tuple[int, ...]] = {
    "conv.weight": (3, 2, 3, 4),
    "conv.bias": (3,),
    "norm.weight": (3,),
    "norm.bias": (3,),
    "emb.weight": (5, 4),
    "fc.weight": (2, 6),
    "fc.bias": (2,),
}
ORDER = {
    "conv.weight": "conv.kernel",
    "conv.bias": "conv.bias",
    "norm.weight": "norm.scale",
    "norm.bias": "norm.bias",
    "emb.weight": "emb.embedding",
    "fc.weight": "fc.kernel",
    "fc.bias": "fc.bias",
}
STEPS = 24

Arrays = dict[str, np.ndarray]


def draw(seed: int = 0, steps: int = STEPS) -> tuple[Arrays, list[Arrays]]:
    """Return initial parameters and a gradient for every step, by PyTorch's names."""
    rng = np.random.default_rng(seed)

    def arrays() -> Arrays:
        drawn = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
        return {name: array.astype(np.float32) for name, array in drawn.items()}

    return arrays(), [arrays() for _ in range(steps)]


def to_flax(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Return PyTorch's arrays as Flax's tree."""
    return {
        "conv": {
            "kernel": arrays["conv.weight"].transpose(2, 3, 1, 0),
            "bias": arrays["conv.bias"],
        },
        "norm": {"scale": arrays["norm.weight"], "bias": arrays["norm.bias"]},
        "emb": {"embedding": arrays["emb.weight"]},
        "fc": {"kernel": arrays["fc.weight"].T, "bias": arrays["fc.bias"]},
    }


def from_flax(tree: Any) -> Arrays:
    """Return Flax's tree as PyTorch's arrays."""
    return {
        "conv.weight": np.transpose(tree["conv"]["kernel"], (3, 2, 0, 1)),
        "conv.bias": np.asarray(tree["conv"]["bias"]),
        "norm.weight": np.asarray(tree["norm"]["scale"]),
        "norm.bias": np.asarray(tree["norm"]["bias"]),
        "emb.weight": np.asarray(tree["emb"]["embedding"]),
        "fc.weight": np.transpose(tree["fc"]["kernel"]),
        "fc.bias": np.asarray(tree["fc"]["bias"]),
    }


def run(
    tx: optax.GradientTransformation, params: Any, state: Any, gradients: Sequence[Any]
) -> tuple[Any, Any]:
    """Take a step for each of the gradients; return parameters and state."""

    @jax.jit
    def step(gradient, state, params):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, params)
    for gradient in gradients:
        params, state = step(jax.tree.map(jnp.asarray, gradient), state, params)
    return params, state


def assert_close(actual: Any, expected: Any) -> None:
    """Assert that two trees of float32 differ by rounding only.

    Measured after up to 24 steps: 2 units in the last place of 1, or of the value.
    """
    ulp = float(np.finfo(np.float32).eps)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=4 * ulp, atol=4 * ulp),
        actual,
        jax.tree.map(np.asarray, expected),
    )


def refusal(call: Callable[[], Any]) -> str:
    """Return the message of the ValueError that a call ends in."""
    try:
        call()
    except ValueError as error:
        return str(error)
    raise AssertionError("nothing was refused")
