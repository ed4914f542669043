"""The infinity norm with reduced state: codes instead of moments."""

import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from adamax_optax._checks import check_gradients, check_inexact, leaf_name
from adamax_optax._dtypes import StateDType, scalar
from adamax_optax._rounding import (
    BIAS,
    MANTISSA,
    from_bits,
    leaf_key,
    next_key,
    noise,
    to_bits,
)
from adamax_optax._sharding import filled_like, replicated_beside
from adamax_optax.moments._half_codes import HalfCodes
from adamax_optax.moments._word_codes import WordCodes, next_bound


class ScaleByReducedInfinityNormState(NamedTuple):
    """The two moments of Adamax in fewer bits.

    The state describes itself: what its codes stand for follows from its own fields,
    whatever the hyperparameters were. `adamax_optax.interop.cast_state` decodes it to
    float32 and back.

    Attributes:
      codes: One tree for each array that the form keeps, with the structure and the
        shapes of the parameters: (m, v) in bfloat16 or float16, or (word,) in uint16.
      scale: The s of each leaf, which the norms u = s v of its elements share;
        float32, shape (leaves,).
      bound: An upper bound of |m| / u in each leaf, which sets the range of the code
        of m / u in the word; float32, shape (leaves,). `None` for bfloat16 and float16.
      key: Key of the noise that rounds m, besides an element's place; uint32, shape ().
        It changes at each step.
    """

    codes: tuple[optax.Updates, ...]
    scale: jax.Array
    bound: jax.Array | None
    key: jax.Array


class Codec(Protocol):
    """How m and u are written in fewer bits; `HalfCodes` and `WordCodes`.

    Attributes:
      dtype: The dtype of the codes, which is the `state_dtype`.
      bounded: Whether the codes need a bound of |m| / u.
      initial: The code of each array before the first step.
    """

    @property
    def dtype(self) -> Any: ...

    @property
    def bounded(self) -> bool: ...

    @property
    def initial(self) -> tuple[float, ...]: ...

    def step(self, g, codes, scales, bounds, b1, eps, random) -> tuple[jax.Array, ...]:
        """Return the codes after one gradient.

        Args:
          g: The gradient, float32.
          codes: The codes before.
          scales: The scale before the step, the scale after it, and by which power of
            1/4 each v must be multiplied; see `decay_scale`.
          bounds: The bound before and after the step, where the codec is bounded.
          b1: β1.
          eps: ε.
          random: Noise, uint32, of the gradient's shape.
        """

    def ratio(self, codes, scale, bound) -> jax.Array:
        """Return m / u, float32."""

    def dequantize(self, codes, scale, bound) -> tuple[jax.Array, jax.Array]:
        """Return m and u, float32."""

    def quantize(self, m, u, scale, bound, random) -> tuple[jax.Array, ...]:
        """Return the codes of m and u."""


def codec_for(state_dtype: StateDType) -> Codec:
    """Return the codec of a `state_dtype`.

    Raises:
      ValueError: If there is none.
    """
    if isinstance(state_dtype, jax.Array):
        raise ValueError(
            f"state_dtype must be a dtype, got the array {state_dtype!r}. A dtype is "
            "callable, and optax.inject_hyperparams takes it for a schedule unless it "
            'is named: inject_hyperparams(ao.adamax, static_args="state_dtype").'
        )
    try:
        dtype = jnp.dtype(state_dtype)
    except TypeError:
        dtype = None
    if dtype == jnp.uint16:
        return WordCodes()
    if dtype in (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16)):
        return HalfCodes(dtype)
    raise ValueError(
        "state_dtype must be None, jnp.bfloat16, jnp.float16 or jnp.uint16, got "
        f"{state_dtype!r}."
    )


def reduced_infinity_norm(
    codec: Codec, b1: Any, b2: Any, eps: Any, eps_outside: Any
) -> optax.GradientTransformation:
    """Return `scale_by_infinity_norm` with the state in codes.

    The arithmetic between decoding and encoding is float32. Derivatives of the updates
    are 0.
    """
    hyper = {"b1": b1, "eps": eps, "eps_outside": eps_outside}
    traced = {k: v for k, v in hyper.items() if not isinstance(v, int | float)}
    fixed = tuple((k, v) for k, v in hyper.items() if k not in traced)

    def init_fn(params):
        jax.tree_util.tree_map_with_path(_check_real, params)
        leaves = len(jax.tree.leaves(params))

        def filled(value):
            return jax.tree.map(lambda p: filled_like(p, value, codec.dtype), params)

        return ScaleByReducedInfinityNormState(
            codes=tuple(map(filled, codec.initial)),
            scale=replicated_beside(params, 1, jnp.float32, (leaves,)),
            bound=(
                replicated_beside(params, 0, jnp.float32, (leaves,))
                if codec.bounded
                else None
            ),
            key=replicated_beside(params, 0, jnp.uint32),
        )

    def update_fn(updates, state, params=None):
        del params
        check_gradients(updates, state.codes[0])
        treedef: Any
        gradients, treedef = jax.tree.flatten(updates, is_leaf=lambda x: x is None)
        codes = list(zip(*map(treedef.flatten_up_to, state.codes), strict=True))
        key = next_key(state.key)
        scale, quarterings = decay_scale(state.scale, b2)  # s ← β2 s
        bound = state.bound
        if bound is not None:
            bound = next_bound(bound, scalar(b1, jnp.float32), _positive(b2))
        outputs: list[Any] = []
        steps: list[bool] = []  # for each leaf, whether it has a gradient
        for i, g in enumerate(gradients):
            leaf, below = len(steps), len(jax.tree.leaves(codes[i][0]))
            steps += [g is not None] * below
            if g is None:  # of a leaf, of all leaves below, or of no parameter
                outputs.append(None)
                continue
            scales = state.scale[leaf], scale[leaf], quarterings[leaf]
            bounds = None if bound is None else (state.bound[leaf], bound[leaf])
            ratio, codes[i] = _step_leaf(
                g, codes[i], scales, bounds, leaf_key(key, leaf), traced, codec, fixed
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


# A hundred operations: jitted, leaves of one shape and dtype are traced once.
@functools.partial(jax.jit, static_argnums=(6, 7))
def _step_leaf(g, codes, scales, bounds, key, traced, codec, fixed):
    """Return m_t / u_t and the new codes of one leaf.

    Hyperparameters are in `fixed`, where they keep their 64 bits, or in `traced`.
    """
    cast = {name: jnp.asarray(value, jnp.float32) for name, value in traced.items()}
    hyper = {**dict(fixed), **cast}
    b1, eps_outside = hyper["b1"], hyper["eps_outside"]
    random = noise(codes[0], key)
    wide = jnp.asarray(g, jnp.float32)
    codes = codec.step(wide, codes, scales, bounds, b1, hyper["eps"], random)
    now = codes, scales[1], None if bounds is None else bounds[1]
    if "eps_outside" not in traced and eps_outside == 0:
        ratio = codec.ratio(*now)
    else:
        m, u = codec.dequantize(*now)
        ratio = m / (u + eps_outside)
    # Some forms could be differentiated in parts: u but not m, which is wrong.
    return jax.lax.stop_gradient(ratio).astype(jnp.result_type(g)), codes


def decay_scale(scale: jax.Array, b2: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Decay all norms of a leaf at once by decaying the scalar that they share.

    u_t = max(β2 u_{t-1}, |g| + ε) with u = s v is s ← β2 s, v ← max(v, (|g| + ε) / s):
    v changes only where a gradient exceeds it, each value is rounded once, and decay
    is exact however coarse v's dtype is. When s falls under 1/2, s is multiplied and
    every v divided by 4, which is exact in binary, for the square root of v too.

    Args:
      scale: s, float32, of any shape, in [1/2, 2).
      b2: β2. 0 is taken as 2^-64: no memory either, within the range of the codes.

    Returns:
      The new s in [1/2, 2), and the int32 q ≥ 0 such that every v must be divided by
      4^q. q is 0 but for one step in 1386 at β2 = 0.999.
    """
    scale = scale * _positive(b2)
    exponent = (to_bits(scale) >> MANTISSA) - BIAS  # 2^exponent ≤ s
    quarterings = -exponent >> 1
    return from_bits(to_bits(scale) + (quarterings << (MANTISSA + 1))), quarterings


def _positive(b2):
    """Return β2 as float32, and 2^-64 for 0."""
    return jnp.maximum(jnp.asarray(b2, jnp.float32), 2.0**-64)


def _chosen(steps, new, old):
    """Return, for each leaf, `new` if it steps and else `old`."""
    return new if all(steps) else jnp.where(np.array(steps), new, old)


def _check_real(path, param):
    check_inexact(path, param, "parameter")
    if jnp.iscomplexobj(param):
        raise ValueError(
            f"The parameter at {leaf_name(path)} is complex, "
            "which a reduced state_dtype does not take: pass state_dtype=None, or wrap "
            "the optimizer in optax.contrib.split_real_and_imaginary."
        )
