"""Convert arrays from other libraries, and to the form of a state's arrays."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def is_array(x: Any) -> bool:
    return isinstance(x, jax.Array | np.ndarray | np.generic)


def is_tensor(x: Any) -> bool:
    """Return whether `x` is a tensor of PyTorch or MindSpore."""
    return hasattr(x, "detach") or hasattr(x, "asnumpy")


def to_numpy(value: Any) -> np.ndarray:
    """Convert an array of JAX, NumPy, Keras, PyTorch or MindSpore to NumPy."""
    if hasattr(value, "asnumpy"):
        return np.asarray(value.asnumpy())
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        # PyTorch cannot convert bfloat16 to NumPy.
        value = value.float() if value.dtype.itemsize < 4 else value
    return np.asarray(value)


def whole_number(value: Any) -> int:
    """Return a step count as an int; raise `ValueError` if it is not one."""
    count = to_numpy(value)
    is_number = jnp.issubdtype(count.dtype, jnp.number) and np.isrealobj(count)
    # Written so that a NaN fails.
    if not (count.size == 1 and is_number and 0 <= count < math.inf and count % 1 == 0):
        raise ValueError(f"must be one whole number of at least 0, got {value!r}")
    return int(count.reshape(()))


def cast_like(template: Any, array: Any) -> Any:
    """Return a NumPy or JAX array in the form, dtype and sharding of a moment.

    The moment is an array; the pair of real arrays that Optax makes of a complex one;
    or either in a container that is a tree, such as an `nnx.Variable`. Raise
    `ValueError` if the shape or the kind of dtype does not fit.
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
    """Return a JAX copy of an array, with the dtype and sharding of `template`."""
    # A copy, since states are donated and the array may be the caller's.
    return jax.device_put(array.astype(template.dtype), place_of(template))


def place_of(x: Any) -> Any:
    """Return the sharding that an array is committed to; `None` if JAX may choose."""
    bound = getattr(x, "committed", hasattr(x, "sharding"))
    return x.sharding if bound else None


def joined(value: Any) -> jax.Array:
    """Return a moment as one array; a pair becomes one complex array."""
    leaves = jax.tree.leaves(value)
    parts = [x if isinstance(x, jax.Array) else jax.device_put(x) for x in leaves]
    return parts[0] if len(parts) == 1 else jax.lax.complex(*parts)


def copied(value: Any) -> jax.Array:
    return jnp.copy(joined(value))
