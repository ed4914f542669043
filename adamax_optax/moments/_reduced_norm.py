"""`scale_by_infinity_norm` with the moments stored as codes."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamax_optax._checks import check_gradients, check_inexact, leaf_name
from adamax_optax._dtypes import StateDType, scalar
from adamax_optax._rounding import (
    BIAS,
    MANTISSA,
    from_bits,
    leaf_keys,
    next_key,
    noise,
    to_bits,
)
from adamax_optax._sharding import filled_like, replicated_beside
from adamax_optax.moments._half_codes import BFLOAT16, FLOAT16, HalfCodes
from adamax_optax.moments._word_codes import WordCodes, next_bound

Codec = HalfCodes | WordCodes
_CODECS: dict[Any, Codec] = {x.dtype: x for x in (BFLOAT16, FLOAT16, WordCodes())}


class ScaleByReducedInfinityNormState(NamedTuple):
    """The two moments of Adamax as 16-bit codes.

    The state describes itself: decoding it takes no hyperparameters.
    `adamax_optax.interop.cast_state` converts it to float32 and back.

    Attributes:
      codes: A tuple of trees with the structure and shapes of the parameters: (m, v)
        in bfloat16 or float16, or (word,) in uint16.
      scale: The scale s of each leaf, in [1/2, 2): u = s v; float32, shape (leaves,).
        Under `lazy_rows`, a tuple of one tree like the parameters, with a scale for
        each row, and likewise `bound`.
      bound: An upper bound on the size of m / u for each leaf, which sets the range of
        the word's code of m / u; float32, shape (leaves,). `None` for bfloat16 and
        float16.
      key: Key of the rounding noise, new at each step; uint32, shape ().
    """

    codes: tuple[optax.Updates, ...]
    scale: jax.Array
    bound: jax.Array | None
    key: jax.Array


def codec_for(state_dtype: StateDType) -> Codec:
    """Return the codec of a `state_dtype`, or raise `ValueError` if there is none."""
    if isinstance(state_dtype, jax.Array):
        raise ValueError(
            f"state_dtype must be a dtype, got the array {state_dtype!r}. "
            "optax.inject_hyperparams mistakes a dtype for a schedule, as it is "
            "callable, unless told that it is static: "
            'inject_hyperparams(ao.adamax, static_args="state_dtype").'
        )
    try:
        dtype = jnp.dtype(state_dtype)
    except TypeError:
        dtype = None
    if dtype in _CODECS:
        return _CODECS[dtype]
    raise ValueError(
        "state_dtype must be None, jnp.bfloat16, jnp.float16 or jnp.uint16, got "
        f"{state_dtype!r}."
    )


def state_dtype_of(moments: Any) -> Any:
    """Return the `state_dtype` of moments; `None` also if there are no leaves."""
    codes = jax.tree.leaves(getattr(moments, "codes", ()))
    return codes[0].dtype if codes else None


def check_state(state: Any, state_dtype: Any) -> None:
    """Raise `ValueError` unless the moments in a state have this `state_dtype`."""
    found = state_dtype_of(state)
    empty = found is None and hasattr(state, "codes")
    if found != state_dtype and not empty:
        raise ValueError(
            f"The state has state_dtype={found}, but this optimizer has "
            f"state_dtype={state_dtype}. Build the optimizer with the state_dtype of "
            "the state, or convert the state with interop.cast_state."
        )


def reduced_infinity_norm(
    codec: Codec, b1: Any, b2: Any, eps: Any, eps_outside: Any
) -> optax.GradientTransformation:
    """Return `scale_by_infinity_norm` with codes as its state."""
    hyper = {"b1": b1, "b2": b2, "eps": eps, "eps_outside": eps_outside}
    traced = {k: v for k, v in hyper.items() if not isinstance(v, int | float)}
    fixed = tuple((k, v) for k, v in hyper.items() if k not in traced)

    def init_fn(params):
        jax.tree_util.tree_map_with_path(_check_real, params)
        shape = (len(jax.tree.leaves(params)),)

        def filled(value):
            return jax.tree.map(lambda p: filled_like(p, value, codec.dtype), params)

        def repeated(value):
            return replicated_beside(params, value, jnp.float32, shape)

        return ScaleByReducedInfinityNormState(
            codes=tuple(map(filled, codec.initial)),
            scale=repeated(1),
            bound=repeated(0) if codec.bounded else None,
            key=replicated_beside(params, 0, jnp.uint32),
        )

    def update_fn(updates, state, params=None):
        del params
        check_state(state, codec.dtype)
        check_gradients(updates, state.codes[0])
        treedef: Any
        gradients, treedef = jax.tree.flatten(updates, is_leaf=lambda x: x is None)
        codes = list(zip(*map(treedef.flatten_up_to, state.codes), strict=True))
        key = next_key(state.key)
        keys = leaf_keys(key, state.codes[0])
        # s ← β2 s
        scale = jax.tree.map(lambda s: decay_scale(s, b2)[0], state.scale)
        quarterings = jax.tree.map(lambda s: decay_scale(s, b2)[1], state.scale)
        inverse = jax.tree.map(lambda s: 1 / s, scale)
        scales = [per_leaf(x) for x in (scale, inverse, quarterings)]
        bound = jax.tree.map(
            lambda b: next_bound(b, scalar(b1, jnp.float32), _positive(b2)), state.bound
        )
        old_bounds, new_bounds = per_leaf(state.bound), per_leaf(bound)
        outputs: list[Any] = []
        steps: list[bool] = []  # whether each leaf has a gradient
        for i, g in enumerate(gradients):
            leaf, below = len(steps), len(jax.tree.leaves(codes[i][0]))
            steps += [g is not None] * below
            if g is None:  # one leaf, a subtree or nothing: `below` says how many
                outputs.append(None)
                continue
            own = [x[leaf] for x in scales]
            bounds = None if bound is None else (old_bounds[leaf], new_bounds[leaf])
            ratio, codes[i] = _step_leaf(
                g, codes[i], own, bounds, keys[leaf], traced, codec, fixed
            )
            outputs.append(ratio)
        trees = [[leaf[i] for leaf in codes] for i in range(len(state.codes))]
        state = ScaleByReducedInfinityNormState(
            codes=tuple(map(treedef.unflatten, trees)),
            scale=_chosen(steps, scale, state.scale),
            bound=None if bound is None else _chosen(steps, bound, state.bound),
            key=key,
        )
        return treedef.unflatten(outputs), state

    return optax.GradientTransformation(init_fn, update_fn)


# Jitted, so that its hundred operations are traced once for each shape and dtype.
@functools.partial(jax.jit, static_argnums=(6, 7))
def _step_leaf(g, codes, scales, bounds, key, traced, codec, fixed):
    """Return m_t / u_t and the new codes of one leaf.

    Python numbers are in `fixed`, to keep their 64 bits, and arrays in `traced`.
    """
    cast = {name: jnp.asarray(value, jnp.float32) for name, value in traced.items()}
    hyper = {**dict(fixed), **cast}
    b1, b2, eps = hyper["b1"], _positive(hyper["b2"]), hyper["eps"]
    eps_outside = hyper["eps_outside"]
    scale, inverse, quarterings = scales
    random = noise(codes[0], key)
    wide = jnp.asarray(g, jnp.float32)
    codes = codec.step(wide, codes, inverse, quarterings, bounds, b1, b2, eps, random)
    now = codes, scale, None if bounds is None else bounds[1]
    if "eps_outside" not in traced and eps_outside == 0:
        ratio = codec.ratio(*now)
    else:
        m, u = codec.dequantize(*now)
        ratio = m / (u + eps_outside)
    # Some codecs pass derivatives through u but not through m, which would be wrong.
    return jax.lax.stop_gradient(ratio).astype(jnp.result_type(g)), codes


def decay_scale(
    scale: jax.Array, b2: jax.typing.ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Decay all norms of a leaf at once, by decaying their common scale.

    With u = s v, u ← max(β2 u, |g| + ε) becomes s ← β2 s and v ← max(v, (|g| + ε) / s).
    So v changes only where a gradient exceeds it, each value is rounded once, and decay
    is exact however coarse v is. When s falls below 1/2, multiply it by 4 and divide
    every v by 4, which is exact in binary, for the square root of v too.

    Return the new s in [1/2, 2), and an int32 q ≥ 0: every v must be divided by 4^q.
    β2 below 2^-64, such as 0, counts as 2^-64.
    """
    scale = scale * _positive(b2)
    exponent = (to_bits(scale) >> MANTISSA) - BIAS  # 2^exponent ≤ s
    quarterings = -exponent >> 1
    new = from_bits(to_bits(scale) + (quarterings << (MANTISSA + 1)))
    return jnp.where(scale == scale, new, jnp.nan), quarterings  # keep NaN visible


def _positive(b2):
    """Return β2 as float32, at least 2^-64."""
    return jnp.maximum(jnp.asarray(b2, jnp.float32), 2.0**-64)


def per_leaf(x: Any) -> Any:
    """Return a scale or a bound as a sequence over leaves; see `lazy_rows`."""
    return jax.tree.leaves(x) if isinstance(x, tuple) else x


def _chosen(steps, new, old):
    """Return `new` for the leaves that step and `old` for the others."""
    if all(steps) or isinstance(new, tuple):  # `lazy_rows` chooses for itself
        return new
    return jnp.where(np.array(steps), new, old)


def _check_real(path, param):
    check_inexact(path, param, "parameter")
    if jnp.iscomplexobj(param):
        raise ValueError(
            f"The parameter at {leaf_name(path)} is complex, which a reduced "
            "state_dtype does not support: pass state_dtype=None, or wrap the "
            "optimizer in optax.contrib.split_real_and_imaginary."
        )
