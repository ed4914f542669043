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
from adamax_optax._placement import scalar_beside
from adamax_optax.interop import cast_state
from adamax_optax.interop._cast_state import encode_again, is_norm


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
        return kept_as(self.norm)


def init(params: Sequence[Any], state_dtype: Any = None) -> list[Moments]:
    """Return the moments of parameters before their first step.

    Args:
      params: The parameters.
      state_dtype: As in `adamax_optax.adamax`.
    """
    tx = component_wise(adamax(state_dtype=state_dtype), params)
    return [Moments(norm_in(tx.init([param])), 0) for param in params]


def kept_as(norm: Any) -> Any:
    """Return the `state_dtype` of a functional state of moments."""
    if isinstance(norm, ScaleByInfinityNormState):
        return None
    return jax.tree.leaves(norm.codes)[0].dtype


def cast(
    norm: Any, param_dtype: Any, state_dtype: Any, *, b1: Any, b2: Any, key: int
) -> Any:
    """Return a functional state of moments as another `state_dtype` keeps them.

    Args:
      norm: The moments of parameters of one dtype.
      param_dtype: That dtype.
      state_dtype: What to change to.
      b1: The group's first beta.
      b2: The group's second beta.
      key: What the noise of new codes begins with.
    """
    wanted = None if state_dtype is None else jnp.dtype(state_dtype)
    if kept_as(norm) == wanted:
        return norm
    norm = cast_state(norm, wanted, b1=b1, b2=b2)
    if wanted is not None:
        return norm._replace(key=jnp.full_like(norm.key, key))
    dtype = compute_dtype(jnp.finfo(param_dtype).dtype)
    return jax.tree.map(lambda x: x.astype(dtype), norm)


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
        scalar_beside(moments.norm.mu, scale, jnp.float32),
        scalar_beside(moments.norm.mu, key, jnp.uint32),
        b1=b1,
        b2=b2,
    )
    return Moments(norm, moments.count)


def norm_in(state: optax.OptState) -> Any:
    """Return the moments in a functional state."""
    (norm,) = filter(is_norm, jax.tree.leaves(state, is_leaf=is_norm))
    return norm


def with_norm(state: optax.OptState, norm: Any) -> optax.OptState:
    """Return a functional state with these moments."""
    return jax.tree.map(lambda x: norm if is_norm(x) else x, state, is_leaf=is_norm)


def columns(norm: Any) -> tuple[Any, ...]:
    """Return the lists with an entry for each parameter: m and u, or their codes."""
    if isinstance(norm, ScaleByInfinityNormState):
        return norm.mu, norm.nu
    return norm.codes


def with_columns(norm: Any, lists: Sequence[list[Any]]) -> Any:
    """Return a functional state with other lists, and all else as it was."""
    if isinstance(norm, ScaleByInfinityNormState):
        return ScaleByInfinityNormState(*lists)
    return norm._replace(codes=tuple(lists))


def component_wise(tx: Any, tree: Any) -> Any:
    """Wrap a transformation for complex parameters as PyTorch takes them.

    Each complex number becomes two real ones, with a norm of its own for each. Trees
    without complex leaves are left alone.
    """
    if any(map(jnp.iscomplexobj, jax.tree.leaves(tree))):
        return optax.contrib.split_real_and_imaginary(tx)
    return tx
