"""The infinity norm with reduced state: codes instead of moments."""

import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from adamax_optax._half_codes import HalfCodes
from adamax_optax._lazy_scale import decay_scale
from adamax_optax._noise import leaf_key, next_key, noise
from adamax_optax._placement import filled_like, scalar_beside
from adamax_optax._tree_checks import check_gradients, check_inexact, leaf_name
from adamax_optax._word_codes import WordCodes


class ScaleByReducedInfinityNormState(NamedTuple):
    """The two moments of Adamax in fewer bits.

    `adamax_optax.interop.cast_state` turns it into moments in float32, and back.

    Attributes:
      codes: One tree for each array that the form keeps, with the structure and the
        shapes of the parameters: (m, v) in bfloat16 or float16, or (word,) in uint16.
      scale: s, which all norms u = s v share; float32, shape ().
      key: What the noise of the rounding depends on, besides an element's place;
        uint32, shape (). It changes at each step.
    """

    codes: tuple[optax.Updates, ...]
    scale: jax.Array
    key: jax.Array


class Codes(Protocol):
    """A way to write m and u in fewer bits; see `HalfCodes` and `WordCodes`.

    Those that do the same are equal and have one hash.
    """

    @property
    def dtype(self) -> Any: ...

    @property
    def initial(self) -> tuple[float, ...]: ...

    def step(
        self, g, codes, old_scale, scale, quarterings, b1, b2, eps, random
    ) -> tuple[jax.Array, ...]: ...

    def ratio(self, codes, scale, b1, b2) -> jax.Array: ...

    def moments(self, codes, scale, b1, b2) -> tuple[jax.Array, jax.Array]: ...

    def encode(self, m, u, scale, b1, b2, random) -> tuple[jax.Array, ...]: ...


def codes_for(state_dtype: Any, b1: Any, b2: Any) -> Codes:
    """Return the codes that a `state_dtype` stands for.

    Raises:
      ValueError: If it stands for none, or b1 ≥ b2 and the codes need b1 < b2.
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
        return WordCodes(b1, b2)
    if dtype in (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16)):
        return HalfCodes(dtype)
    raise ValueError(
        "state_dtype must be None, jnp.bfloat16, jnp.float16 or jnp.uint16, got "
        f"{state_dtype!r}."
    )


def reduced_infinity_norm(
    form: Codes, b1: Any, b2: Any, eps: Any, eps_outside: Any
) -> optax.GradientTransformation:
    """Return `scale_by_infinity_norm` with the state in codes.

    The arithmetic between decoding and encoding is float32. To derivatives the updates
    are constants.
    """
    hyper = {"b1": b1, "b2": b2, "eps": eps, "eps_outside": eps_outside}
    traced = {k: v for k, v in hyper.items() if not isinstance(v, int | float)}
    constants = tuple((k, v) for k, v in hyper.items() if k not in traced)

    def init_fn(params):
        jax.tree_util.tree_map_with_path(_check_real, params)

        def filled(value):
            return jax.tree.map(lambda p: filled_like(p, value, form.dtype), params)

        return ScaleByReducedInfinityNormState(
            codes=tuple(map(filled, form.initial)),
            scale=scalar_beside(params, 1, jnp.float32),
            key=scalar_beside(params, 0, jnp.uint32),
        )

    def update_fn(updates, state, params=None):
        del params
        check_gradients(updates, state.codes[0])
        treedef: Any
        gradients, treedef = jax.tree.flatten(updates, is_leaf=lambda x: x is None)
        codes = list(zip(*map(treedef.flatten_up_to, state.codes), strict=True))
        key = next_key(state.key)
        scale, quarterings = decay_scale(state.scale, b2)  # s ← β2 s
        scales = state.scale, scale, quarterings
        outputs: list[Any] = []
        for i, g in enumerate(gradients):
            if g is None:
                outputs.append(None)
                continue
            ratio, codes[i] = _step_leaf(
                g, codes[i], scales, leaf_key(key, i), traced, form, constants
            )
            outputs.append(ratio)
        trees = [[leaf[i] for leaf in codes] for i in range(len(state.codes))]
        state = ScaleByReducedInfinityNormState(
            codes=tuple(map(treedef.unflatten, trees)), scale=scale, key=key
        )
        return treedef.unflatten(outputs), state

    return optax.GradientTransformation(init_fn, update_fn)


# A hundred operations: jitted, leaves of one shape and dtype are traced once.
@functools.partial(jax.jit, static_argnums=(5, 6))
def _step_leaf(g, codes, scales, key, traced, form, constants):
    """Return m_t / u_t and the new codes of one leaf.

    Hyperparameters are in `constants`, where they keep their 64 bits, or in `traced`.
    """
    cast = {name: jnp.asarray(value, jnp.float32) for name, value in traced.items()}
    hyper = {**dict(constants), **cast}
    b1, b2, eps_outside = hyper["b1"], hyper["b2"], hyper["eps_outside"]
    random = noise(codes[0], key)
    wide = jnp.asarray(g, jnp.float32)
    codes = form.step(wide, codes, *scales, b1, b2, hyper["eps"], random)
    _, scale, _ = scales
    if "eps_outside" not in traced and eps_outside == 0:
        ratio = form.ratio(codes, scale, b1, b2)
    else:
        m, u = form.moments(codes, scale, b1, b2)
        ratio = m / (u + eps_outside)
    # Some forms could be differentiated in parts: u but not m, which is wrong.
    return jax.lax.stop_gradient(ratio).astype(jnp.result_type(g)), codes


def _check_real(path, param):
    check_inexact(path, param, "parameter")
    if jnp.iscomplexobj(param):
        raise ValueError(
            f"The parameter at {leaf_name(path)} is complex, "
            "which a reduced state_dtype does not take: pass state_dtype=None, or wrap "
            "the optimizer in optax.contrib.split_real_and_imaginary."
        )
