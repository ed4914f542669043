"""What Adamax remembers of each parameter."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from adamax_optax._alias import adamax
from adamax_optax._dtypes import compute_dtype
from adamax_optax._infinity_norm import ScaleByInfinityNormState
from adamax_optax._reduced_norm import ScaleByReducedInfinityNormState
from adamax_optax.interop import cast_state
from adamax_optax.interop._cast_state import encode_again

_NORMS = ScaleByInfinityNormState | ScaleByReducedInfinityNormState


class Moments(NamedTuple):
    """What Adamax remembers of one parameter.

    Attributes:
      norm: The functional state of its moments, that of a list of one. For a complex
        parameter the list holds Optax's pair of arrays.
      count: Its number of steps, a Python int.
    """

    norm: Any
    # NamedTuples have a method of that name.
    count: int  # type: ignore[assignment]

    @property
    def state_dtype(self) -> Any:
        """How the moments are kept; `None` or a dtype."""
        if isinstance(self.norm, ScaleByInfinityNormState):
            return None
        return jax.tree.leaves(self.norm.codes)[0].dtype

    def copy(self) -> "Moments":
        """Return moments with arrays of their own: a step uses up those it takes."""
        return Moments(jax.tree.map(jnp.copy, self.norm), self.count)


def init(
    params: Sequence[Any], state_dtype: Any = None, first: int = 0
) -> list[Moments]:
    """Return the moments of parameters before their first step.

    Args:
      params: The parameters.
      state_dtype: As in `adamax_optax.adamax`.
      first: The number of the first parameter; each has noise of its own.
    """
    tx = component_wise(adamax(state_dtype=state_dtype), params)
    if state_dtype is None:
        norms = split(norm_in(tx.init(list(params))))
    else:
        norms = [
            _with_key(norm_in(tx.init([param])), number)
            for number, param in enumerate(params, start=first)
        ]
    return [Moments(norm, 0) for norm in norms]


def cast(
    moments: Moments,
    param: Any,
    state_dtype: Any,
    *,
    b1: Any,
    b2: Any,
    number: int,
) -> Moments:
    """Return the moments of a parameter as another `state_dtype` keeps them.

    Args:
      moments: The moments.
      param: Their parameter.
      state_dtype: What to change to.
      b1: The group's first beta.
      b2: The group's second beta.
      number: The parameter's number.
    """
    wanted = None if state_dtype is None else jnp.dtype(state_dtype)
    if moments.state_dtype == wanted:
        return moments
    norm = cast_state(moments.norm, wanted, b1=b1, b2=b2)
    if wanted is None:
        dtype = compute_dtype(jnp.finfo(param.dtype).dtype)
        norm = jax.tree.map(lambda x: x.astype(dtype), norm)
    else:
        norm = _with_key(norm, number)
    return Moments(norm, moments.count)


def coding(moments: Moments) -> dict[str, float]:
    """Return what `encoded` needs besides the decoded moments: nothing for `None`.

    Python's numbers, which PyTorch, unlike tensors, does not cast to the parameters'
    dtype.
    """
    if moments.state_dtype is None:
        return {}
    return {"scale": float(moments.norm.scale), "key": int(moments.norm.key)}


def encoded(
    moments: Moments, state_dtype: Any, *, b1: Any, b2: Any, scale: float, key: int
) -> Moments:
    """Return moments that were cast to `None` as they were before, bit for bit.

    Args:
      moments: The moments.
      state_dtype: As they were kept before, not `None`.
      b1: The group's first beta.
      b2: The group's second beta.
      scale: What `coding` returned, as the next.
      key: What `coding` returned.
    """
    norm = encode_again(
        moments.norm,
        state_dtype,
        jnp.asarray(scale, jnp.float32),
        jnp.asarray(key, jnp.uint32),
        b1=b1,
        b2=b2,
    )
    return Moments(norm, moments.count)


def norm_in(state: optax.OptState) -> Any:
    """Return the moments in a functional state."""
    (norm,) = filter(_is_norm, jax.tree.leaves(state, is_leaf=_is_norm))
    return norm


def with_norm(state: optax.OptState, norm: Any) -> optax.OptState:
    """Return a functional state with these moments."""
    return jax.tree.map(lambda x: norm if _is_norm(x) else x, state, is_leaf=_is_norm)


def joined(norms: Sequence[Any]) -> Any:
    """Return the moments of several parameters as those of one list."""
    if len(norms) == 1:
        return norms[0]
    return ScaleByInfinityNormState(
        mu=[mu for norm in norms for mu in norm.mu],
        nu=[nu for norm in norms for nu in norm.nu],
    )


def split(norm: Any) -> list[Any]:
    """Return the moments of a list of parameters for each of them."""
    if isinstance(norm, ScaleByReducedInfinityNormState):
        return [norm]
    return [
        ScaleByInfinityNormState([mu], [nu])
        for mu, nu in zip(norm.mu, norm.nu, strict=True)
    ]


def component_wise(tx: Any, tree: Any) -> Any:
    """Wrap a transformation for complex parameters as PyTorch takes them.

    Each complex number becomes two real ones, with a norm of its own for each. Trees
    without complex leaves are left alone.
    """
    if any(map(jnp.iscomplexobj, jax.tree.leaves(tree))):
        return optax.contrib.split_real_and_imaginary(tx)
    return tx


def _with_key(norm: Any, number: int) -> Any:
    return norm._replace(key=jnp.asarray(number, jnp.uint32))


def _is_norm(x: Any) -> bool:
    return isinstance(x, _NORMS)
