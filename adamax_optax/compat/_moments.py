"""The moments and the step count of each parameter, between functional states."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from adamax_optax._adamax import adamax
from adamax_optax._arrays import put_like
from adamax_optax._dtypes import compute_dtype
from adamax_optax._sharding import replicated_beside
from adamax_optax.moments import (
    Moments,
    ScaleByInfinityNormState,
    ScaleByReducedInfinityNormState,
    cast_state,
    is_moments,
    restore_codes,
    state_dtype_of,
)


class ParamState(NamedTuple):
    """The state of one parameter.

    Attributes:
      moments: The functional state of its moments, that of a list of one. For a complex
        parameter the list holds Optax's pair of arrays.
      count: Its number of steps, a Python int.
    """

    moments: Moments
    # NamedTuples have a method of that name.
    count: int  # type: ignore[assignment]


def init(params: Sequence[Any], state_dtype: Any = None) -> list[ParamState]:
    """Return the state of parameters before their first step.

    Args:
      params: The parameters.
      state_dtype: As in `adamax_optax.adamax`.
    """
    tx = component_wise(adamax(state_dtype=state_dtype), params)
    return [ParamState(moments_in(tx.init([param])), 0) for param in params]


def cast(moments: Moments, param_dtype: Any, state_dtype: Any, *, key: int) -> Moments:
    """Return moments in another `state_dtype`.

    Args:
      moments: The moments of parameters of one dtype.
      param_dtype: That dtype.
      state_dtype: What to change to.
      key: Where the noise of new codes begins.
    """
    wanted = None if state_dtype is None else jnp.dtype(state_dtype)
    if state_dtype_of(moments) == wanted:
        return moments
    state: Any = moments  # its types are narrower than Optax's
    cast: Any = cast_state(state, wanted)
    if wanted is not None:
        return cast._replace(key=jnp.full_like(cast.key, key))
    dtype = compute_dtype(jnp.finfo(param_dtype).dtype)
    return jax.tree.map(lambda x: x.astype(dtype), cast)


def scale_bound_key(moments: Moments) -> dict[str, float]:
    """Return what gives decoded moments of one parameter their codes back.

    Python numbers, which PyTorch, unlike tensors, does not cast to the dtype of the
    parameters. Nothing for the `state_dtype` `None`.
    """
    if isinstance(moments, ScaleByInfinityNormState):
        return {}
    numbers: dict[str, float] = {"scale": moments.scale.item()}
    if moments.bound is not None:
        numbers["bound"] = moments.bound.item()
    return {**numbers, "key": moments.key.item()}


def restored(
    state: ParamState, state_dtype: Any, numbers: dict[str, float]
) -> ParamState:
    """Return a state whose moments were decoded with its codes again, bit for bit.

    Args:
      state: The state.
      state_dtype: Of the moments before, not `None`.
      numbers: What `scale_bound_key` returned then.
    """

    decoded: Any = state.moments

    def beside(name: str, dtype: Any, shape: tuple[int, ...]) -> Any:
        if name not in numbers:
            return None
        return replicated_beside(decoded.mu, numbers[name], dtype, shape)

    moments = restore_codes(
        decoded,
        state_dtype,
        beside("scale", jnp.float32, (1,)),
        beside("bound", jnp.float32, (1,)),
        beside("key", jnp.uint32, ()),
    )
    return state._replace(moments=moments)


def moments_in(state: optax.OptState) -> Moments:
    """Return the moments in a functional state."""
    (found,) = filter(is_moments, jax.tree.leaves(state, is_leaf=is_moments))
    return found


def with_moments(state: optax.OptState, moments: Moments) -> optax.OptState:
    """Return a functional state with these moments."""
    return jax.tree.map(
        lambda x: moments if is_moments(x) else x, state, is_leaf=is_moments
    )


def columns(moments: Moments) -> tuple[Any, ...]:
    """Return the lists with an entry for each parameter: m and u, or their codes."""
    if isinstance(moments, ScaleByInfinityNormState):
        return moments.mu, moments.nu
    return moments.codes


def with_columns(moments: Moments, lists: Sequence[list[Any]]) -> Moments:
    """Return moments with other lists, and all else as it was."""
    if isinstance(moments, ScaleByInfinityNormState):
        return ScaleByInfinityNormState(*lists)
    return moments._replace(codes=tuple(lists))


def rows(moments: Moments) -> list[Moments]:
    """Return moments of several parameters as copies, one list for each."""
    parameters = zip(*columns(moments), strict=True)
    singles = [[[jax.tree.map(jnp.copy, x)] for x in row] for row in parameters]
    if isinstance(moments, ScaleByInfinityNormState):
        return [ScaleByInfinityNormState(*single) for single in singles]

    def part(array, i):
        return None if array is None else put_like(array, np.asarray(array)[i : i + 1])

    return [
        ScaleByReducedInfinityNormState(
            codes=tuple(single),
            scale=part(moments.scale, i),
            bound=part(moments.bound, i),
            key=jnp.copy(moments.key),
        )
        for i, single in enumerate(singles)
    ]


def stack(rows: Sequence[Moments]) -> Any:
    """Return moments as one list; of reduced ones the first gives the key."""
    first = rows[0]
    parts = zip(*map(columns, rows), strict=True)
    lists = [list(itertools.chain(*part)) for part in parts]
    if isinstance(first, ScaleByInfinityNormState):
        return ScaleByInfinityNormState(*lists)

    def whole(*arrays):
        return put_like(arrays[0], np.concatenate(list(map(np.asarray, arrays))))

    scale, bound = (
        jax.tree.map(whole, *(getattr(row, name) for row in rows))
        for name in ("scale", "bound")
    )
    return first._replace(codes=tuple(lists), scale=scale, bound=bound)


def component_wise(tx: Any, tree: Any) -> Any:
    """Wrap a transformation for complex parameters as PyTorch takes them.

    Each complex number becomes two real ones, with a norm of its own for each. Trees
    without complex leaves are left alone.
    """
    if any(map(jnp.iscomplexobj, jax.tree.leaves(tree))):
        return optax.contrib.split_real_and_imaginary(tx)
    return tx
