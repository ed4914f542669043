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
from adamax_optax.compat import _moments

_LARGEST_COUNT = np.iinfo(np.int32).max


def step(
    params: Sequence[Any],
    moments: Sequence[_moments.Moments],
    gradients: Mapping[int, Any],
    group_of: Sequence[int],
    hyper: Sequence[dict[str, Any]],
) -> dict[int, tuple[Any, _moments.Moments]]:
    """Step the parameters that have a gradient.

    Parameters of one group with one dtype and one step count share a call of the
    functional form: one for each parameter would take XLA several times as long to
    compile. Those with reduced state have one each, since its scale is their own.

    Args:
      params: All parameters.
      moments: Theirs. Those of the parameters with a gradient are used up.
      gradients: The gradients, by the number of the parameter.
      group_of: The group of each parameter.
      hyper: The arguments of `adamax_optax.adamax` for each group, as arrays.

    Returns:
      The new parameters and moments, by number.
    """
    members: dict[Any, list[int]] = {}
    for k in sorted(gradients):
        alone = k if moments[k].state_dtype is not None else None
        key = group_of[k], moments[k].count, params[k].dtype, alone
        members.setdefault(key, []).append(k)
    batches = [
        _Batch(
            params=[_strong(params[k]) for k in numbers],
            gradients=[_strong(gradients[k]) for k in numbers],
            count=np.int32(min(count, _LARGEST_COUNT)),
            hyper=hyper[group],
        )
        for (group, count, *_), numbers in members.items()
    ]
    used_up = [[moments[k].norm for k in numbers] for numbers in members.values()]
    state_dtypes = tuple(moments[k].state_dtype for k, *_ in members.values())
    return {
        k: (param, _moments.Moments(norm, moments[k].count + 1))
        for numbers, stepped in zip(
            members.values(), _compiled(batches, used_up, state_dtypes), strict=True
        )
        for k, param, norm in zip(numbers, *stepped, strict=True)
    }


def _strong(array):
    # What jnp.full and jnp.asarray make of Python numbers is weakly typed, what comes
    # out of a step is not: without this the second step would be compiled anew.
    if getattr(array, "weak_type", False):
        return jnp.asarray(array, array.dtype)
    return array


class _Batch(NamedTuple):
    params: list[Any]
    gradients: list[Any]
    count: Any
    hyper: dict[str, Any]


@functools.partial(jax.jit, donate_argnums=1, static_argnums=2)
def _compiled(batches, norms, state_dtypes):
    return list(map(_step_batch, batches, norms, state_dtypes))


def _step_batch(batch, norms, state_dtype):
    # Optax multiplies the gradients by these two as they are; the others are cast to
    # the moments' dtype where they meet them.
    dtype = compute_dtype(jnp.finfo(batch.params[0].dtype).dtype)
    rates = {
        name: jnp.asarray(batch.hyper[name], dtype)
        for name in ("learning_rate", "weight_decay")
    }
    tx = adamax(**{**batch.hyper, **rates}, state_dtype=state_dtype)
    tx = _moments.component_wise(tx, batch.params)
    state = _moments.with_norm(tx.init([]), _moments.joined(norms))
    state = optax.tree_utils.tree_set(state, count=batch.count)
    updates, state = tx.update(batch.gradients, state, batch.params)
    params = optax.apply_updates(batch.params, updates)
    return params, _moments.split(_moments.norm_in(state))
