"""Convert moments from one `state_dtype` to another, in the middle of a run."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamax_optax._arrays import put_like
from adamax_optax._dtypes import StateDType
from adamax_optax._rounding import leaf_keys, next_key, noise
from adamax_optax._sharding import replicated_beside
from adamax_optax.moments._infinity_norm import ScaleByInfinityNormState
from adamax_optax.moments._reduced_norm import (
    Codec,
    ScaleByReducedInfinityNormState,
    codec_for,
    per_leaf,
    state_dtype_of,
)
from adamax_optax.moments._word_codes import bound_of

Moments = ScaleByInfinityNormState | ScaleByReducedInfinityNormState


def is_moments(x: Any) -> bool:
    """Return whether `x` is a state that holds moments, encoded or not."""
    return isinstance(x, Moments)


def map_moments(fn: Callable[[Any], Any], opt_state: optax.OptState) -> Any:
    """Return a state with `fn` applied to its moments."""
    return jax.tree.map(
        lambda x: fn(x) if is_moments(x) else x, opt_state, is_leaf=is_moments
    )


def require_moments(opt_state: optax.OptState) -> None:
    """Raise `ValueError` unless a state holds moments of this package."""
    if not any(map(is_moments, jax.tree.leaves(opt_state, is_leaf=is_moments))):
        raise ValueError(
            "opt_state holds no moments of adamax_optax; got "
            f"{jax.tree.structure(opt_state)}."
        )


def cast_state(opt_state: optax.OptState, state_dtype: StateDType) -> optax.OptState:
    """Convert the moments in an optimizer state to another `state_dtype`.

    A run that outgrows its memory can continue with smaller state: cast the state, and
    build the optimizer again with the same arguments and the new `state_dtype`.

    Args:
      opt_state: The state of any transformation of this package, however deeply nested
        in chains and wrappers.
      state_dtype: `None`, `jnp.bfloat16`, `jnp.float16` or `jnp.uint16`, as in
        `adamax_optax.adamax`.

    Returns:
      The state with its moments converted and the rest unchanged. Moments that
      already have this `state_dtype` stay as they are, bit for bit, and `None` decodes
      the others to float32 without error. Otherwise each value is clipped to the range
      of the new form and rounded once. Within the range, the error is at most 1 part in
      128 of m and 1 in 256 of u in bfloat16, 1 in 500 of both in float16 (for |m|
      of at least 4e-9), and 12% of u in uint16. m is rounded at random, without
      bias; in uint16 that holds for |m| / u of at most 1024.

    Raises:
      ValueError: If `state_dtype` is none of these, if the moments are complex and it
        is not `None`, or if `opt_state` holds no moments of this package.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> p = jnp.ones(1000)
      >>> state = ao.adamax(1e-3).init(p)
      >>> small = ao.interop.cast_state(state, jnp.uint16)
      >>> tx = ao.adamax(1e-3, state_dtype=jnp.uint16)
      >>> updates, small = tx.update(p, small, p)
    """
    require_moments(opt_state)
    return map_moments(lambda moments: _cast(moments, state_dtype), opt_state)


def restore_codes(
    moments: ScaleByInfinityNormState,
    state_dtype: Any,
    scale: Any,
    bound: Any,
    key: jax.Array,
) -> ScaleByReducedInfinityNormState:
    """Undo `cast_state(state, None)`, bit for bit.

    Rounding decoded values to the nearest code restores their codes: float32 errors are
    far smaller than half the distance between codes. `state_dtype`, `scale`, `bound`
    and `key` are those of the reduced state.
    """
    half = jnp.asarray(1 << 31, jnp.uint32)  # this noise rounds to nearest
    codec = codec_for(state_dtype)
    return _quantized(codec, moments, scale, bound, key, lambda leaf, m: half)


def _cast(state: Moments, state_dtype: StateDType) -> Moments:
    if state_dtype is None:
        return _dequantized(state)
    codec = codec_for(state_dtype)
    if state_dtype_of(state) == codec.dtype:
        return state
    moments = _dequantized(state)
    leaves = jax.tree.leaves(moments.mu)
    if any(map(jnp.iscomplexobj, leaves)):
        raise ValueError(
            f"state_dtype={state_dtype!r} does not support the moments of complex "
            "parameters: use state_dtype=None."
        )
    scale = replicated_beside(moments.mu, 1, jnp.float32, (len(leaves),))
    key = replicated_beside(moments.mu, 0, jnp.uint32)
    if isinstance(state, ScaleByReducedInfinityNormState):
        scale = scale if isinstance(state.scale, tuple) else state.scale
        key = next_key(state.key)
    bound = None
    if codec.bounded:
        bound = _stacked(map(_bound_of, leaves, jax.tree.leaves(moments.nu)), scale)
    keys = leaf_keys(key, moments.mu)
    return _quantized(
        codec, moments, scale, bound, key, lambda leaf, m: noise(m, keys[leaf])
    )


def _dequantized(state: Moments) -> ScaleByInfinityNormState:
    """Return the moments, decoded to float32 if they are codes."""
    if isinstance(state, ScaleByInfinityNormState):
        return state
    dtype = state_dtype_of(state)
    if dtype is None:
        return ScaleByInfinityNormState(mu=state.codes[0], nu=state.codes[0])
    leaves = len(jax.tree.leaves(state.codes[0]))
    scale, bounds = per_leaf(state.scale), per_leaf(state.bound)
    if scale is state.scale and scale.shape != (leaves,):
        raise ValueError(
            f"The state has a scale of shape {scale.shape} for {leaves} leaves: "
            "cast a batch of states by jax.vmap(lambda s: cast_state(s, state_dtype))."
        )
    means, norms = [], []
    for leaf, codes in enumerate(zip(*map(jax.tree.leaves, state.codes), strict=True)):
        bound = None if bounds is None else bounds[leaf]
        m, u = _dequantize(codec_for(dtype), codes, scale[leaf], bound)
        means.append(m)
        norms.append(u)
    treedef = jax.tree.structure(state.codes[0])
    return ScaleByInfinityNormState(
        mu=jax.tree.unflatten(treedef, means), nu=jax.tree.unflatten(treedef, norms)
    )


def _quantized(
    codec: Codec,
    moments: ScaleByInfinityNormState,
    scale: Any,
    bound: Any,
    key: jax.Array,
    random: Callable[[int, jax.Array], jax.Array],
) -> ScaleByReducedInfinityNormState:
    """Encode moments; `random(leaf, m)` makes the noise that rounds a leaf."""
    codes, scales, bounds = [], per_leaf(scale), per_leaf(bound)
    for leaf, (m, u) in enumerate(zip(*map(jax.tree.leaves, moments), strict=True)):
        top = None if bounds is None else bounds[leaf]
        codes.append(_quantize(codec, m, u, scales[leaf], top, random(leaf, m)))
    treedef = jax.tree.structure(moments.mu)
    trees = [[leaf[i] for leaf in codes] for i in range(len(codec.initial))]
    return ScaleByReducedInfinityNormState(
        codes=tuple(jax.tree.unflatten(treedef, tree) for tree in trees),
        scale=scale,
        bound=bound,
        key=key,
    )


def _stacked(bounds: Iterable[jax.Array], scale: jax.Array) -> jax.Array:
    """Return scalars, which may be on different devices, as an array beside `scale`."""
    scalars = list(bounds)
    if not scalars or any(isinstance(x, jax.core.Tracer) for x in scalars):
        return jnp.asarray(scalars, jnp.float32)
    return put_like(scale, np.asarray(jax.device_get(scalars), np.float32))


# Jitted, to compile once for each shape instead of operation by operation.


@functools.partial(jax.jit, static_argnums=0)
def _dequantize(codec, codes, scale, bound):
    return codec.dequantize(codes, scale, bound)


@functools.partial(jax.jit, static_argnums=0)
def _quantize(codec, m, u, scale, bound, random):
    m, u = m.astype(jnp.float32), u.astype(jnp.float32)
    return codec.quantize(m, u, scale, bound, random)


@jax.jit
def _bound_of(m, u):
    return bound_of(m.astype(jnp.float32), u.astype(jnp.float32))
