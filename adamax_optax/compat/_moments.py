"""The moments and step counts: of each parameter, or packed for a compiled step."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from adamax_optax._adamax import adamax
from adamax_optax._arrays import place_of, put_like
from adamax_optax._bias_correction import LARGEST_COUNT
from adamax_optax._dtypes import StateDType, compute_dtype
from adamax_optax._lazy_rows import has_row_scales, lazy_rows, with_row_scales
from adamax_optax._rounding import leaf_key
from adamax_optax._sharding import moment_sharding, place_beside, replicated_beside
from adamax_optax.compat._plan import Spec, pieces_of
from adamax_optax.moments import (
    Moments,
    ScaleByInfinityNormState,
    cast_state,
    is_moments,
    restore_codes,
    state_dtype_of,
)


class ParamState(NamedTuple):
    """The state of one parameter."""

    # Its functional state, as for a list of one array (for a complex parameter: Optax's
    # pair of arrays).
    moments: Moments
    # Its number of steps. Hides the method `tuple.count`.
    count: int  # type: ignore[assignment]


class Coding(NamedTuple):
    """The numbers beside the codes of reduced moments; in `Packed`, by parameter."""

    # Float32, shape (parameters, 1), or (parameters, 2) if any is complex. Not used
    # where each row has its own.
    scale: Any
    bound: Any  # the same
    key: Any  # uint32, shape (parameters,)


class Packed(NamedTuple):
    """The states of all parameters, as a compiled step takes and returns them.

    Attributes:
      moments: For each piece of the plan, a tuple of the arrays of m and u, or their
        codes (with `lazy_rows` also the scales and bounds of the rows); shared by the
        piece's parameters.
      counts: Step counts, in the order of the pieces; int32, shape (parameters,).
      coding: A `Coding` in the same order, as a tuple; `None` if nothing is reduced.
    """

    moments: Any
    counts: Any
    coding: Any


def init(
    param: Any, state_dtype: StateDType = None, lazy: bool = False, number: int = 0
) -> ParamState:
    """Return the state of a parameter before its first step."""
    tx = transformation({}, state_dtype, lazy, [param])
    moments: Any = moments_in(tx.init([param]))
    if state_dtype is not None:
        moments = moments._replace(key=_first_key(moments, number))
    return ParamState(moments, 0)


def is_complex(state: ParamState) -> bool:
    """Return whether the moments are those of a complex parameter."""
    moments: Any = state.moments
    return len(jax.tree.leaves(getattr(moments, "codes", moments)[0])) > 1


def cast(state: ParamState, spec: Spec, number: int) -> ParamState:
    """Convert the moments of parameter `number` to the form that its spec asks for."""
    wanted: Any = spec.state_dtype
    moments: Any = state.moments  # its types are narrower than Optax's
    if has_row_scales(moments) and not spec.lazy_rows:
        moments = cast_state(moments, None)
    if state_dtype_of(moments) != wanted:
        moments = cast_state(moments, wanted)
        if wanted is not None:
            moments = moments._replace(key=_first_key(moments, number))
    if moments is not state.moments and wanted is None:
        dtype = compute_dtype(jnp.finfo(spec.dtype).dtype)
        moments = jax.tree.map(lambda x: x.astype(dtype), moments)
    if spec.lazy_rows:
        moments = with_row_scales(moments)
    return state._replace(moments=moments)


def scale_bound_key(moments: Moments) -> dict[str, Any]:
    """Return the numbers that restore the codes of one parameter's decoded moments.

    They are Python numbers, since PyTorch casts tensors to the parameters' dtype; the
    scale and the bound of a complex parameter are lists of two. With `lazy_rows` these
    are arrays, of one for each row: there may be millions. Empty if `state_dtype` is
    `None`.
    """
    if isinstance(moments, ScaleByInfinityNormState):
        return {}
    numbers: dict[str, Any] = {}
    for name in Coding._fields:
        value = getattr(moments, name)
        if isinstance(value, tuple):
            rows = jax.tree.leaves(value)
            numbers[name] = jnp.stack(rows) if len(rows) > 1 else rows[0]
        elif value is not None:
            numbers[name] = value.item() if value.size == 1 else value.tolist()
    return numbers


def restored(
    state: ParamState, state_dtype: Any, numbers: dict[str, Any]
) -> ParamState:
    """Return a state with its decoded moments as codes again, bit for bit.

    `numbers` is the `scale_bound_key` of the codes. If they do not belong to
    these moments, such as after steps in PyTorch, return the state as it is.
    """
    decoded: Any = state.moments
    treedef: Any
    leaves, treedef = jax.tree.flatten(decoded.mu)
    one_per_row = *leaves[0].shape[:1], *(1 for _ in leaves[0].shape[1:])

    def beside(values: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
        array = replicated_beside(decoded.mu, 0, dtype, shape)
        return put_like(array, np.reshape(np.asarray(values, dtype), shape))

    def per_leaf(name: str) -> Any:
        if name not in numbers:
            return None
        values = np.ravel(numbers[name])
        if values.size in (1, len(leaves)):
            values = np.broadcast_to(values, len(leaves))
            return beside(values, jnp.float32, values.shape)
        rows = np.split(values, len(leaves))
        rows = [beside(part, jnp.float32, one_per_row) for part in rows]
        return (treedef.unflatten(rows),)

    moments: Any = restore_codes(
        decoded,
        state_dtype,
        per_leaf("scale"),
        per_leaf("bound"),
        beside(numbers["key"], jnp.uint32, ()),
    )
    # PyTorch may have rounded m and u to bfloat16, by up to 0.2%.
    again: Any = cast_state(moments, None)
    same = jax.tree.map(
        lambda a, b: jnp.allclose(a, b, rtol=0.005, atol=0.0, equal_nan=True),
        again,
        decoded,
    )
    return state._replace(moments=moments) if all(jax.tree.leaves(same)) else state


def moments_in(state: optax.OptState) -> Moments:
    (found,) = filter(is_moments, jax.tree.leaves(state, is_leaf=is_moments))
    return found


def columns(moments: Any) -> Any:
    """Return moments with only what has the parameter's rows; `None` for the rest."""
    if isinstance(moments, ScaleByInfinityNormState):
        return moments
    if has_row_scales(moments):
        return moments._replace(key=None)
    return moments._replace(scale=None, bound=None, key=None)


def with_columns(moments: Moments, leaves: Sequence[Any]) -> Moments:
    """Return moments with the arrays `leaves` in place of those in `columns`."""
    treedef: Any = jax.tree.structure(columns(moments))
    new = treedef.unflatten(leaves)._asdict()
    return moments._replace(**{k: v for k, v in new.items() if v is not None})


def pack(
    states: Sequence[ParamState], specs: Sequence[Spec], params: Sequence[Any]
) -> Packed:
    """Return the states of all parameters in the form that a step takes.

    Arrays that are not shared are used as they are, not copied.
    """
    pieces = pieces_of(specs)
    common = place_beside(params)

    def vector(rows: Sequence[Any], dtype: Any) -> jax.Array:
        return jax.device_put(np.asarray(rows, dtype), common)

    moments = []
    for piece in pieces:
        rows = [leaves_of(states[k].moments) for k in piece.numbers]
        arrays: Any = rows[0]
        if len(rows) > 1:
            columns = zip(*rows, strict=True)
            arrays = [piece.share([*map(np.asarray, x)], np) for x in columns]
        param = params[piece.numbers[0]]
        place = place_of(param)
        places = [moment_sharding(place, param.shape, x.shape) for x in arrays]
        moments.append(tuple(map(jax.device_put, arrays, places)))
    ordered = [states[k] for piece in pieces for k in piece.numbers]
    counts = vector([min(state.count, LARGEST_COUNT) for state in ordered], np.int32)
    if all(state_dtype_of(state.moments) is None for state in states):
        return Packed(tuple(moments), counts, None)
    width = 2 if any(jnp.issubdtype(s.dtype, jnp.complexfloating) for s in specs) else 1
    codings = [_row_of(state.moments, width) for state in ordered]
    dtypes = np.float32, np.float32, np.uint32
    coding = tuple(map(vector, zip(*codings, strict=True), dtypes))
    return Packed(tuple(moments), counts, coding)


def unpack(packed: Packed, specs: Sequence[Spec]) -> list[ParamState]:
    """Return copies of the states of all parameters."""
    counts = np.asarray(packed.counts)
    coding = jax.tree.map(np.asarray, packed.coding)
    states: dict[int, ParamState] = {}
    for piece, arrays in zip(pieces_of(specs), packed.moments, strict=True):
        shared = len(piece.numbers) > 1
        parts = [piece.divide(np.asarray(x) if shared else x) for x in arrays]
        for i, k in enumerate(piece.numbers):
            form = form_of(specs[k].dtype, specs[k].state_dtype, specs[k].lazy_rows)
            leaves = [
                put_like(array, part[i]) if shared else jnp.copy(array)
                for array, part in zip(arrays, parts, strict=True)
            ]
            row = piece.start + i
            moments = with_columns(form, leaves)
            if specs[k].state_dtype is not None:
                numbers = map(put_like, packed.coding, [x[row] for x in coding])
                moments = with_coding(moments, Coding(*numbers))
            states[k] = ParamState(moments, int(counts[row]))
    return [states[k] for k in range(len(specs))]


@functools.lru_cache(maxsize=64)
def form_of(
    dtype: Any, state_dtype: StateDType, lazy: bool, shape: tuple[int, ...] = ()
) -> Moments:
    """Return the structure of the moments of a parameter: its arrays have no values."""
    param = jax.ShapeDtypeStruct(shape, dtype)
    return jax.eval_shape(lambda param: init(param, state_dtype, lazy).moments, param)


def leaves_of(moments: Moments) -> tuple[Any, ...]:
    """Return the arrays in `columns`."""
    return tuple(jax.tree.leaves(columns(moments)))


def shardings(spec: Spec) -> tuple[Any, ...]:
    """Return the sharding of each of a parameter's `leaves_of`."""
    form = form_of(spec.dtype, spec.state_dtype, spec.lazy_rows, spec.shape)
    return tuple(
        moment_sharding(spec.sharding, spec.shape, x.shape) for x in leaves_of(form)
    )


def with_coding(moments: Any, coding: Coding) -> Any:
    """Return reduced moments of one parameter with the numbers of a row of `Coding`."""
    if has_row_scales(moments):
        return moments._replace(key=coding.key)
    leaves = moments.scale.shape[0]  # two for a complex parameter
    bound = None if moments.bound is None else coding.bound[:leaves]
    return moments._replace(scale=coding.scale[:leaves], bound=bound, key=coding.key)


def transformation(
    arguments: dict[str, Any], state_dtype: StateDType, lazy: bool, tree: Any
) -> Any:
    """Return the transformation of a group, for the parameters or gradients `tree`.

    It treats complex numbers as two real ones, as PyTorch does.
    """
    tx: Any = adamax(**arguments, state_dtype=state_dtype)
    if any(map(jnp.iscomplexobj, jax.tree.leaves(tree))):
        tx = optax.contrib.split_real_and_imaginary(tx)
    return lazy_rows(tx) if lazy else tx


def coding_of(moments: Any, like: Coding) -> Coding:
    """Return reduced moments' numbers as a row of `Coding`, as wide as `like`."""
    if has_row_scales(moments):
        return like._replace(key=moments.key)

    def widened(array: Any, old: Any) -> Any:
        if array is None or array.shape == old.shape:
            return old if array is None else array
        return old.at[: len(array)].set(array)

    return Coding(
        widened(moments.scale, like.scale),
        widened(moments.bound, like.bound),
        moments.key,
    )


def _first_key(moments: Any, number: int) -> Any:
    """Return the noise key of parameter `number` before its first step."""
    return leaf_key(jnp.zeros_like(moments.key), number)


def _row_of(moments: Any, width: int) -> Coding:
    """Return a row of `Coding` as NumPy arrays."""
    row = Coding(np.ones(width, np.float32), np.ones(width, np.float32), np.uint32(0))
    if isinstance(moments, ScaleByInfinityNormState):
        return row
    return jax.tree.map(np.asarray, coding_of(moments, jax.tree.map(jnp.asarray, row)))
