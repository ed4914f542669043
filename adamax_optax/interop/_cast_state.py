"""From one `state_dtype` to another, in the middle of a run."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamax_optax._infinity_norm import ScaleByInfinityNormState
from adamax_optax._noise import leaf_key, next_key, noise
from adamax_optax._placement import scalar_beside
from adamax_optax._reduced_norm import ScaleByReducedInfinityNormState, codes_for


def is_norm(x: Any) -> bool:
    """Whether something is the state of moments, in whatever form."""
    return isinstance(x, ScaleByInfinityNormState | ScaleByReducedInfinityNormState)


def require_moments(opt_state: optax.OptState) -> None:
    """Raise unless there are moments of this package in a state.

    Raises:
      ValueError: If there are none.
    """
    if not any(map(is_norm, jax.tree.leaves(opt_state, is_leaf=is_norm))):
        raise ValueError(
            "opt_state holds no moments of adamax_optax; got "
            f"{jax.tree.structure(opt_state)}."
        )


def cast_state(
    opt_state: optax.OptState, state_dtype: Any, *, b1: Any = 0.9, b2: Any = 0.999
) -> optax.OptState:
    """Convert the moments in an optimizer state to another `state_dtype`.

    A run that outgrows its memory can go on with smaller state: cast the state, and
    build the optimizer anew with the same arguments and the new `state_dtype`.

    Args:
      opt_state: The state of any transformation of this package, however deep in the
        states of chains and wrappers.
      state_dtype: `None`, `jnp.bfloat16`, `jnp.float16` or `jnp.uint16`, as in
        `adamax_optax.adamax`.
      b1: The optimizer's b1. With `jnp.uint16`, coming or going, b1 and b2 set the
        range of the code and must be the optimizer's.
      b2: The optimizer's b2.

    Returns:
      The state with its moments converted and all else as it was. The error is one
      rounding of the new form: none for `None`, where the moments come out in float32;
      at most 0.4% of m and u for bfloat16; for uint16 at most 12% of u, and m / u
      rounded at random without bias.

    Raises:
      ValueError: If `state_dtype` is none of these or needs b1 < b2, if the moments
        are complex, or if there are no moments of this package in `opt_state`.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> p = jnp.ones(1000)
      >>> state = ao.adamax(1e-3).init(p)
      >>> small = ao.interop.cast_state(state, jnp.uint16)
      >>> tx = ao.adamax(1e-3, state_dtype=jnp.uint16)
      >>> updates, small = tx.update(p, small, p)
    """
    require_moments(opt_state)
    return jax.tree.map(
        lambda x: _cast(x, state_dtype, b1, b2) if is_norm(x) else x,
        opt_state,
        is_leaf=is_norm,
    )


def _cast(state, state_dtype, b1, b2):
    if state_dtype is None:
        return _decoded(state, b1, b2)
    form = codes_for(state_dtype, b1, b2)
    moments = _decoded(state, b1, b2)
    if isinstance(state, ScaleByReducedInfinityNormState):
        scale, key = state.scale, next_key(state.key)
    else:
        scale = scalar_beside(moments.mu, 1, jnp.float32)
        key = scalar_beside(moments.mu, 0, jnp.uint32)
    if any(map(jnp.iscomplexobj, jax.tree.leaves(moments.mu))):
        raise ValueError(
            f"state_dtype={state_dtype!r} does not take the moments of complex "
            "parameters: keep them with state_dtype=None."
        )

    def random(i, m):
        return noise(m, leaf_key(key, i))

    return _encoded(moments, form, scale, key, b1, b2, random)


@functools.partial(jax.jit, static_argnames="state_dtype")  # not compiled op by op
def encode_again(
    moments: ScaleByInfinityNormState,
    state_dtype: Any,
    scale: jax.Array,
    key: jax.Array,
    *,
    b1: Any,
    b2: Any,
) -> ScaleByReducedInfinityNormState:
    """Return decoded moments in the codes that they came from, bit for bit.

    Rounding to the nearest code gives every decoded value its own code back: the
    errors of the arithmetic between are far smaller than half the way to the next.

    Args:
      moments: What `cast_state` made of the state with `state_dtype=None`.
      state_dtype: Of the state, not `None`.
      scale: Its scale.
      key: Its key.
      b1: As it was given to `cast_state`.
      b2: As it was given to `cast_state`.
    """
    half = jnp.asarray(1 << 31, jnp.uint32)  # the noise that rounds to the nearest
    form = codes_for(state_dtype, b1, b2)
    return _encoded(moments, form, scale, key, b1, b2, lambda i, m: half)


def _encoded(moments, form, scale, key, b1, b2, random):
    """Return the state with these moments; `random` makes a leaf's noise."""
    treedef: Any
    means, treedef = jax.tree.flatten(moments.mu)
    codes = [
        form.encode(
            m.astype(jnp.float32),
            u.astype(jnp.float32),
            scale,
            b1,
            b2,
            random(i, m),
        )
        for i, (m, u) in enumerate(
            zip(means, treedef.flatten_up_to(moments.nu), strict=True)
        )
    ]
    trees = [[leaf[i] for leaf in codes] for i in range(len(form.initial))]
    return ScaleByReducedInfinityNormState(
        codes=tuple(map(treedef.unflatten, trees)), scale=scale, key=key
    )


def _decoded(state, b1, b2):
    """Return the state with moments in float32, or as they are if they are wider."""
    if isinstance(state, ScaleByInfinityNormState):
        return state
    leaves = jax.tree.leaves(state.codes)
    if not leaves:
        return ScaleByInfinityNormState(mu=state.codes[0], nu=state.codes[0])
    form = codes_for(leaves[0].dtype, b1, b2)
    moments = [
        jax.tree.map(
            lambda *codes, i=i: form.moments(codes, state.scale, b1, b2)[i],
            *state.codes,
        )
        for i in range(2)
    ]
    return ScaleByInfinityNormState(*moments)
