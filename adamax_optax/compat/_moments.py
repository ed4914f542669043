"""The moments and step count of each parameter, to and from functional states."""

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
from adamax_optax._dtypes import StateDType, compute_dtype
from adamax_optax._sharding import replicated_beside
from adamax_optax.moments import (
    Moments,
    ScaleByInfinityNormState,
    ScaleByReducedInfinityNormState,
    cast_state,
    is_moments,
    map_moments,
    restore_codes,
    state_dtype_of,
)


class ParamState(NamedTuple):
    """The state of one parameter.

    Attributes:
      moments: The functional state of its moments, as of a list of one array (for a
        complex parameter: Optax's pair of arrays).
      count: Its number of steps, a Python int.
    """

    moments: Moments
    # Hides the method `tuple.count`.
    count: int  # type: ignore[assignment]


def init(params: Sequence[Any], state_dtype: StateDType = None) -> list[ParamState]:
    """Return the states of parameters before their first step."""
    tx = component_wise(adamax(state_dtype=state_dtype), params)
    return [ParamState(moments_in(tx.init([param])), 0) for param in params]


def cast(
    moments: Moments, param_dtype: Any, state_dtype: StateDType, *, key: int
) -> Moments:
    """Convert moments of parameters of one dtype to another `state_dtype`.

    New codes start with the noise of `key`.
    """
    wanted = None if state_dtype is None else jnp.dtype(state_dtype)
    if state_dtype_of(moments) == wanted:
        return moments
    state: Any = moments  # its types are narrower than Optax's
    new: Any = cast_state(state, wanted)
    if wanted is not None:
        return new._replace(key=jnp.full_like(new.key, key))
    dtype = compute_dtype(jnp.finfo(param_dtype).dtype)
    return jax.tree.map(lambda x: x.astype(dtype), new)


def scale_bound_key(moments: Moments) -> dict[str, Any]:
    """Return the numbers that restore the codes of one parameter's decoded moments.

    They are Python numbers, since PyTorch casts tensors to the parameters' dtype; the
    scale and the bound of a complex parameter are lists of two. Empty if `state_dtype`
    is `None`.
    """
    if isinstance(moments, ScaleByInfinityNormState):
        return {}
    arrays = {"scale": moments.scale, "bound": moments.bound, "key": moments.key}
    return {
        name: array.item() if array.size == 1 else array.tolist()
        for name, array in arrays.items()
        if array is not None
    }


def restored(
    state: ParamState, state_dtype: Any, numbers: dict[str, Any]
) -> ParamState:
    """Return a state with its decoded moments as codes again, bit for bit.

    `numbers` is the `scale_bound_key` of the codes. If they did not stand for these
    moments, such as after steps in PyTorch, return the state as it is.
    """
    decoded: Any = state.moments

    def beside(name: str, dtype: Any, shape: tuple[int, ...]) -> Any:
        if name not in numbers:
            return None
        array = replicated_beside(decoded.mu, 0, dtype, shape)
        return put_like(array, np.reshape(np.asarray(numbers[name], dtype), shape))

    leaves = (len(jax.tree.leaves(decoded.mu)),)
    moments: Any = restore_codes(
        decoded,
        state_dtype,
        beside("scale", jnp.float32, leaves),
        beside("bound", jnp.float32, leaves),
        beside("key", jnp.uint32, ()),
    )
    # Tensors may have rounded m and u to bfloat16: by 0.2%.
    again: Any = cast_state(moments, None)
    same = jax.tree.map(
        lambda a, b: jnp.allclose(a, b, rtol=0.005, atol=0.0, equal_nan=True),
        again,
        decoded,
    )
    return state._replace(moments=moments) if all(jax.tree.leaves(same)) else state


def moments_in(state: optax.OptState) -> Moments:
    """Return the moments in a functional state."""
    (found,) = filter(is_moments, jax.tree.leaves(state, is_leaf=is_moments))
    return found


def with_moments(state: optax.OptState, moments: Moments) -> optax.OptState:
    """Return a functional state with these moments."""
    return map_moments(lambda _: moments, state)


def columns(moments: Moments) -> tuple[Any, ...]:
    """Return the lists with one entry per parameter: m and u, or their codes."""
    if isinstance(moments, ScaleByInfinityNormState):
        return moments.mu, moments.nu
    return moments.codes


def with_columns(moments: Moments, lists: Sequence[list[Any]]) -> Moments:
    """Return moments with new lists in place of `columns(moments)`."""
    if isinstance(moments, ScaleByInfinityNormState):
        return ScaleByInfinityNormState(*lists)
    return moments._replace(codes=tuple(lists))


def rows(moments: Moments) -> list[Moments]:
    """Split moments of several parameters into copies with one parameter each."""
    parameters = zip(*columns(moments), strict=True)
    singles = [[[jax.tree.map(jnp.copy, x)] for x in row] for row in parameters]
    if isinstance(moments, ScaleByInfinityNormState):
        return [ScaleByInfinityNormState(*single) for single in singles]
    # A complex parameter has two leaves.
    ends = np.cumsum([len(jax.tree.leaves(single[0])) for single in singles])
    starts = [0, *ends]

    def part(array, i):
        own = slice(starts[i], ends[i])
        return None if array is None else put_like(array, np.asarray(array)[own])

    return [
        ScaleByReducedInfinityNormState(
            codes=tuple(single),
            scale=part(moments.scale, i),
            bound=part(moments.bound, i),
            key=jnp.copy(moments.key),
        )
        for i, single in enumerate(singles)
    ]


def stack(parts: Sequence[Moments]) -> Any:
    """Join what `rows` splits; reduced moments take the key of the first part."""
    first = parts[0]
    together = zip(*map(columns, parts), strict=True)
    lists = [list(itertools.chain(*column)) for column in together]
    if isinstance(first, ScaleByInfinityNormState):
        return ScaleByInfinityNormState(*lists)

    def whole(*arrays):
        return put_like(arrays[0], np.concatenate(list(map(np.asarray, arrays))))

    scale, bound = (
        jax.tree.map(whole, *(getattr(part, name) for part in parts))
        for name in ("scale", "bound")
    )
    return first._replace(codes=tuple(lists), scale=scale, bound=bound)


def component_wise(
    tx: optax.GradientTransformation, tree: Any
) -> optax.GradientTransformation:
    """Treat complex numbers as two real ones, as PyTorch does.

    Returns `tx` itself for a tree without complex leaves.
    """
    if any(map(jnp.iscomplexobj, jax.tree.leaves(tree))):
        return optax.contrib.split_real_and_imaginary(tx)
    return tx
