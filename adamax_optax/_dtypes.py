"""Arithmetic in at least float32, whatever the dtype of the leaves."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

# Not `jax.typing.DTypeLike`, which accepts any string.
StateDType = (
    Literal["bfloat16", "float16", "uint16"] | type[np.generic] | np.dtype[Any] | None
)


def compute_dtype(dtype: Any) -> Any:
    """Return the dtype to compute in: float32 for the 8- and 16-bit floats."""
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else jnp.dtype(dtype)


def real_dtype(dtype: Any) -> Any:
    """Return the dtype of |x|: float32 for complex64, the same dtype if it is real."""
    return jnp.finfo(dtype).dtype


def scalar(value: Any, dtype: Any) -> Any:
    """Cast a traced hyperparameter, which would impose its own dtype, to `dtype`.

    A Python number keeps 64 bits until it is combined with an array.
    """
    return value if isinstance(value, int | float) else jnp.asarray(value, dtype)


def decayed_mean(m: jax.Array, g: jax.Array, b1: Any) -> jax.Array:
    """Return β1 m + (1 - β1) g, with weights that add up to 1.

    float32 rounds β1 and 1 - β1 differently. At β1 = 0.99999 the weights of the
    equation as it is written would add up to 0.9986 in the long run.

    `g` has the dtype of `m`; `b1` is a Python number or has its real dtype.
    """
    if isinstance(b1, int | float) and b1 > 0.9:
        change = g - m  # may overflow where the mean does not
        mean = m + (1 - b1) * change
        return jnp.where(jnp.isinf(change), b1 * m + (1 - b1) * g, mean)
    return b1 * m + (1 - b1) * g


def in_compute_dtype(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Run a whole chain in at least float32 and round only its result.

    Otherwise every link rounds to the gradients' dtype, and in bfloat16 a decay of
    less than 1/256 of the gradient would be lost before it reaches the moments.
    The state is `inner`'s; updates have the gradients' dtypes.
    """
    inner = optax.with_extra_args_support(inner)

    def update_fn(updates, state, params=None, **extra_args):
        outputs, state = inner.update(
            widened(updates), state, widened(params), **extra_args
        )
        outputs = jax.tree.map(
            lambda x, g: x.astype(jnp.result_type(g)), outputs, updates
        )
        return outputs, state

    return optax.GradientTransformationExtraArgs(inner.init, update_fn)


def leaf_dtype(leaf: Any) -> Any:
    """Return the dtype of an array or a number, or `None` for anything else."""
    is_array = hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    if not is_array and not isinstance(leaf, int | float | complex):
        return None
    try:
        return jnp.result_type(leaf)
    except TypeError:  # an array of objects or of another library
        return None


def widened(tree: Any) -> Any:
    """Return a tree with its floating and complex leaves in at least float32."""

    def widen(x):
        dtype = leaf_dtype(x)
        if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
            return x  # left to the links, whose errors name the leaf
        return jnp.asarray(x, compute_dtype(dtype))

    return jax.tree.map(widen, tree)
