"""One step of any number of groups, compiled as one program."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamax_optax._adamax import adamax
from adamax_optax._bias_correction import LARGEST_COUNT
from adamax_optax._dtypes import compute_dtype
from adamax_optax.compat import _hyperparameters, _moments
from adamax_optax.compat._buckets import Bucket


def step(
    buckets: Sequence[Bucket],
    params: Sequence[Any],
    gradients: Mapping[int, Any],
    hyper: _hyperparameters.Packed,
    *,
    donate: bool,
) -> tuple[dict[int, Any], list[Bucket]]:
    """Return the new parameters, by number, and the buckets after one step.

    `gradients` has, by number, the gradients of all parameters in `buckets`. The
    moments in `buckets` are donated, and with `donate` these parameters too.
    """
    if donate:
        params = _distinct(params, gradients)
    order = [k for bucket in buckets for piece in bucket.pieces for k in piece]
    moments, new = (_overwriting if donate else _keeping)(
        [bucket.moments for bucket in buckets],
        [params[k] for k in order],
        [gradients[k] for k in order],
        np.array([min(b.count, LARGEST_COUNT) for b in buckets], np.int32),
        hyper.table,
        tuple(
            _Kind(
                b.group, b.state_dtype, hyper.decays[b.group], tuple(map(len, b.pieces))
            )
            for b in buckets
        ),
    )
    return dict(zip(order, new, strict=True)), [
        bucket._replace(moments=stepped, count=bucket.count + 1)
        for bucket, stepped in zip(buckets, moments, strict=True)
    ]


def _distinct(params, gradients):
    """Return the parameters, copied where a donated array is used twice."""
    used = set(map(id, gradients.values()))
    if len(used.union(map(id, params))) == len(gradients) + len(params):
        return params
    used.update(id(param) for k, param in enumerate(params) if k not in gradients)
    distinct = list(params)
    for k in gradients:
        if id(params[k]) in used:
            distinct[k] = jnp.copy(params[k])
        used.add(id(params[k]))
    return distinct


class _Kind(NamedTuple):
    """Static facts about a bucket; each distinct value compiles its own program.

    Attributes:
      group: The number of its group.
      state_dtype: The `state_dtype` of its moments.
      decays: Whether its group has a weight decay. Without one, the program need not
        read the parameters to update the moments.
      lengths: The number of parameters in each of its pieces.
    """

    group: int
    state_dtype: Any
    decays: bool
    lengths: tuple[int, ...]


def _step_all(moments, params, gradients, counts, table, kinds):
    rest = iter(zip(params, gradients, strict=True))
    stepped = [
        _step_bucket(kind, own, count, table, [_take(rest, n) for n in kind.lengths])
        for kind, own, count in zip(kinds, moments, counts, strict=True)
    ]
    # JAX lets each output overwrite the first donated array of its shape. Moments come
    # before parameters in inputs and outputs: otherwise one would overwrite the other,
    # and XLA would have to copy.
    return [own for own, _ in stepped], [p for _, new in stepped for p in new]


_keeping = jax.jit(_step_all, donate_argnums=0, static_argnums=5)
_overwriting = jax.jit(_step_all, donate_argnums=(0, 1), static_argnums=5)


def _take(pairs, number):
    """Return the parameters and the gradients of the next `number` pairs."""
    return tuple(zip(*itertools.islice(pairs, number), strict=True))


def _step_bucket(kind, moments, count, table, pieces):
    old = [params for params, _ in pieces]
    dtype = compute_dtype(old[0][0].dtype)
    gradients = [_joined(piece, dtype) for _, piece in pieces]
    params = [_joined(piece, dtype) for piece in old]
    tx: Any = adamax(**_arguments(kind, table, dtype), state_dtype=kind.state_dtype)
    tx = _moments.component_wise(tx, params)
    state = optax.tree_utils.tree_set(
        _moments.with_moments(tx.init([]), moments), count=count
    )
    updates, state = tx.update(gradients, state, params)
    moved = [_moved(*piece) for piece in zip(old, updates, strict=True)]
    return _moments.moments_in(state), [param for piece in moved for param in piece]


def _arguments(kind, table, dtype):
    arguments = _hyperparameters.unpack(table[kind.group])
    # Optax multiplies the gradients by these two without casting them; the other
    # arguments are cast where they are used.
    for name in ("learning_rate", "weight_decay"):
        arguments[name] = jnp.asarray(arguments[name], jnp.finfo(dtype).dtype)
    return arguments if kind.decays else {**arguments, "weight_decay": 0.0}


def _joined(arrays, dtype):
    """Return the arrays of a piece as one, flat unless there is only one."""
    if len(arrays) == 1:
        return jnp.asarray(arrays[0], dtype)
    return jnp.concatenate([jnp.asarray(array, dtype).ravel() for array in arrays])


def _moved(params, update):
    """Return a piece's parameters plus its update, rounded once."""
    ends = np.cumsum([param.size for param in params])[:-1]
    parts = [update] if len(params) == 1 else jnp.split(update, ends)
    parts = [part.reshape(p.shape) for part, p in zip(parts, params, strict=True)]
    wide = [jnp.asarray(param, update.dtype) for param in params]
    new: Any = optax.apply_updates(wide, parts)
    return [x.astype(param.dtype) for x, param in zip(new, params, strict=True)]
