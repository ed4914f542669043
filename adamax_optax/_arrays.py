"""Arrays of other libraries, and how they become part of a state."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def to_numpy(value: Any) -> np.ndarray:
    """Return an array of JAX, NumPy, Keras, PyTorch or MindSpore as one of NumPy."""
    if hasattr(value, "asnumpy"):
        return np.asarray(value.asnumpy())
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        # NumPy has no bfloat16 that PyTorch would know.
        value = value.float() if value.dtype.itemsize < 4 else value
    return np.asarray(value)


def whole_number(value: Any) -> int:
    """Return a step count.

    Raises:
      ValueError: If it is none.
    """
    count = to_numpy(value)
    is_number = count.size == 1 and (
        jnp.issubdtype(count.dtype, jnp.integer)
        or jnp.issubdtype(count.dtype, jnp.floating)
    )
    # A NaN is not in any range.
    if not (is_number and 0 <= count < math.inf and count % 1 == 0):
        raise ValueError(f"must be one whole number of at least 0, got {value!r}")
    return int(count.reshape(()))


def cast_like(template: Any, array: Any) -> Any:
    """Return an array in the form, dtype and sharding of a moment.

    Args:
      template: An array; a pair of them, which Optax makes of a complex one; or either
        in a container that is a tree, such as an `nnx.Variable`.
      array: An array of NumPy or JAX.

    Raises:
      ValueError: If the shape or the kind of the dtype does not fit.
    """
    leaves, treedef = jax.tree.flatten(template)
    shape, is_pair = leaves[0].shape, len(leaves) == 2
    is_complex = is_pair or jnp.iscomplexobj(leaves[0])
    if array.shape != shape:
        raise ValueError(f"must have the parameter's shape {shape}, got {array.shape}")
    if (
        not jnp.issubdtype(array.dtype, jnp.inexact)
        or jnp.iscomplexobj(array) != is_complex
    ):
        raise ValueError(
            f"must be {'complex' if is_complex else 'floating'}, as the moment is, got "
            f"{array.dtype}"
        )
    parts = [array.real, array.imag] if is_pair else [array]
    arrays = [put_like(leaf, part) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(treedef, arrays)


def put_like(template: Any, array: Any) -> jax.Array:
    """Return an array in the dtype of another, and where that one is.

    Args:
      template: An array, or its shape, dtype and sharding.
      array: An array of NumPy or JAX.
    """
    # `astype` copies: states are donated, and an array that was passed in is not ours.
    return jax.device_put(array.astype(template.dtype), place_of(template))


def place_of(x: Any) -> Any:
    """Return the sharding that an array is bound to; `None` if JAX may choose."""
    bound = getattr(x, "committed", hasattr(x, "sharding"))
    return x.sharding if bound else None


def copied(value: Any) -> jax.Array:
    """Return a copy of a moment as one array, complex for a pair of two."""
    parts = [jnp.array(part, copy=True) for part in jax.tree.leaves(value)]
    return parts[0] if len(parts) == 1 else jax.lax.complex(*parts)
