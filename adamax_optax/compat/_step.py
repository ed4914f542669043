"""One step of any number of groups, compiled as a whole."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamax_optax._alias import adamax
from adamax_optax._dtypes import compute_dtype
from adamax_optax.compat import _hyperparameters, _moments
from adamax_optax.compat._buckets import Bucket

_LARGEST_COUNT = np.iinfo(np.int32).max


def step(
    buckets: Sequence[Bucket],
    params: Sequence[Any],
    gradients: Mapping[int, Any],
    hyper: Any,
) -> tuple[dict[int, Any], list[Bucket]]:
    """Step the parameters of some buckets.

    Args:
      buckets: The buckets. Their moments are used up.
      params: All parameters.
      gradients: The gradients, by the number of the parameter.
      hyper: The hyperparameters of all groups, packed.

    Returns:
      The new parameters, by number, and the buckets after the step.
    """
    batches = [
        _Batch(
            params=[[_strong(params[k]) for k in piece] for piece in bucket.pieces],
            gradients=[
                [_strong(gradients[k]) for k in piece] for piece in bucket.pieces
            ],
        )
        for bucket in buckets
    ]
    counts = np.array([min(b.count, _LARGEST_COUNT) for b in buckets], np.int32)
    norms, stepped = _compiled(
        batches,
        [bucket.norm for bucket in buckets],
        counts,
        hyper,
        tuple((bucket.group, bucket.state_dtype) for bucket in buckets),
    )
    new = {
        k: param
        for bucket, pieces in zip(buckets, stepped, strict=True)
        for piece, arrays in zip(bucket.pieces, pieces, strict=True)
        for k, param in zip(piece, arrays, strict=True)
    }
    return new, [
        bucket._replace(norm=norm, count=bucket.count + 1)
        for bucket, norm in zip(buckets, norms, strict=True)
    ]


def _strong(array):
    # What jnp.full and jnp.asarray make of Python numbers is weakly typed, what comes
    # out of a step is not: without this the second step would be compiled anew.
    if getattr(array, "weak_type", False):
        return jnp.asarray(array, array.dtype)
    return array


class _Batch(NamedTuple):
    # Lists with one list for each piece of a bucket.
    params: list[list[Any]]
    gradients: list[list[Any]]


# The kinds, static: for each batch the number of its group and its state_dtype.
@functools.partial(jax.jit, donate_argnums=1, static_argnums=4)
def _compiled(batches, norms, counts, hyper, kinds):
    stepped = [
        _step_batch(batch, norm, count, _hyperparameters.unpack(hyper[group]), kind)
        for batch, norm, count, (group, kind) in zip(
            batches, norms, counts, kinds, strict=True
        )
    ]
    # JAX lets each output overwrite the first donated array of its shape: the moments
    # come first, or the new parameters would be written over them, and they copied.
    return [norm for _, norm in stepped], [params for params, _ in stepped]


def _step_batch(batch, norm, count, arguments, state_dtype):
    dtype = compute_dtype(batch.params[0][0].dtype)
    gradients = [_joined(piece, dtype) for piece in batch.gradients]
    params = [_joined(piece, dtype) for piece in batch.params]
    # Optax multiplies the gradients by these two as they are; the others are cast to
    # the moments' dtype where they meet them.
    rates = {
        name: jnp.asarray(arguments[name], jnp.finfo(dtype).dtype)
        for name in ("learning_rate", "weight_decay")
    }
    tx = adamax(**{**arguments, **rates}, state_dtype=state_dtype)
    tx = _moments.component_wise(tx, params)
    state = optax.tree_utils.tree_set(
        _moments.with_norm(tx.init([]), norm), count=count
    )
    updates, state = tx.update(gradients, state, params)
    new = [
        _moved(piece, update)
        for piece, update in zip(batch.params, updates, strict=True)
    ]
    return new, _moments.norm_in(state)


def _joined(arrays, dtype):
    """Return the arrays of a piece as one."""
    if len(arrays) == 1:
        return jnp.asarray(arrays[0], dtype)
    return jnp.concatenate([jnp.asarray(array, dtype).ravel() for array in arrays])


def _moved(params, update):
    """Return the parameters of a piece plus their parts of its update, rounded once."""
    ends = np.cumsum([param.size for param in params])[:-1]
    parts = [update] if len(params) == 1 else jnp.split(update, ends)
    parts = [part.reshape(p.shape) for part, p in zip(parts, params, strict=True)]
    wide = [jnp.asarray(param, update.dtype) for param in params]
    new: Any = optax.apply_updates(wide, parts)
    return [x.astype(param.dtype) for x, param in zip(new, params, strict=True)]
