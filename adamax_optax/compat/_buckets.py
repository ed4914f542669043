"""Parameters that step together, with the moments of small ones in shared arrays.

With thousands of small parameters, a program that takes and returns one array for each
moment spends its time passing arrays. So the moments of parameters of up to `SMALL`
elements are concatenated into arrays of up to `BUFFER` elements: large enough that
there are few, small enough that intermediate results stay in a core's cache. `ALIKE`
parameters of one shape share an array where possible, because XLA on CPU compiles
identical operations only once. Larger parameters would lose more by the copies than
they gain, and parameters sharded over devices could not share an array without
communication.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adamax_optax._arrays import put_like
from adamax_optax._rounding import leaf_key
from adamax_optax.compat import _moments
from adamax_optax.moments import state_dtype_of

SMALL = 4096
BUFFER = 1 << 15
ALIKE = 32


class Bucket(NamedTuple):
    """Parameters of one group and one dtype that have taken the same steps.

    Attributes:
      group: The number of their group.
      pieces: For each array of moments, the numbers of its parameters, in order. The
        moments of a single parameter keep its shape; those of several are flat.
      moments: The functional state of the moments, as of a list of one array per piece.
      count: The number of steps, a Python int.
    """

    group: int
    pieces: tuple[tuple[int, ...], ...]
    moments: Any
    # Hides the method `tuple.count`.
    count: int  # type: ignore[assignment]

    @property
    def state_dtype(self) -> Any:
        return state_dtype_of(self.moments)

    @property
    def numbers(self) -> list[int]:
        """The numbers of all its parameters, in order."""
        return sorted(k for piece in self.pieces for k in piece)


def gather(
    states: Mapping[int, _moments.ParamState],
    params: Sequence[Any],
    group_of: Sequence[int],
) -> list[Bucket]:
    """Put parameters into buckets, which may take over the arrays of `states`.

    `states` is keyed by parameter number; `params` and `group_of` have all parameters.
    """
    members: dict[Any, list[int]] = {}
    for k in sorted(states):
        key = group_of[k], params[k].dtype, states[k].count, _coding(states[k])
        members.setdefault(key, []).append(k)
    buckets = []
    for (group, _, count, _), numbers in members.items():
        pieces = _pieces(numbers, params)
        moments: Any = _moments.stack(
            [_joined([states[k].moments for k in piece]) for piece in pieces]
        )
        if count == 0 and state_dtype_of(moments) is not None:
            moments = moments._replace(key=jnp.full_like(moments.key, numbers[0]))
        buckets.append(Bucket(group, pieces, moments, count))
    return buckets


def scatter(bucket: Bucket, params: Sequence[Any]) -> dict[int, _moments.ParamState]:
    """Return copies of the state of each parameter in a bucket."""
    states = {}
    for piece, row in zip(bucket.pieces, _moments.rows(bucket.moments), strict=True):
        parts = (
            [row] if len(piece) == 1 else _cut(row, [params[k].shape for k in piece])
        )
        for k, own in zip(piece, parts, strict=True):
            states[k] = _moments.ParamState(own, bucket.count)
    return states


def divide(
    buckets: Sequence[Bucket], inside: Collection[int], params: Sequence[Any]
) -> tuple[list[Bucket], list[bool]]:
    """Split each bucket that has parameters both in `inside` and outside.

    Returns the buckets, and whether each is inside. The parts are not merged again:
    parameters that step separately once may do so at every step.
    """
    if len(inside) == len(params):
        return list(buckets), [True] * len(buckets)
    chosen = set(inside)
    divided: list[Bucket] = []
    for bucket in buckets:
        common = chosen.intersection(bucket.numbers)
        if common and len(common) < len(bucket.numbers):
            divided += _split(bucket, common, params)
        else:
            divided.append(bucket)
    return divided, [bucket.pieces[0][0] in chosen for bucket in divided]


def cast(bucket: Bucket, params: Sequence[Any], options: Mapping[str, Any]) -> Bucket:
    """Return a bucket with its moments in the `state_dtype` of its group's options."""
    first = bucket.pieces[0][0]
    moments = _moments.cast(
        bucket.moments, params[first].dtype, options.get("state_dtype"), key=first
    )
    return bucket._replace(moments=moments)


def _split(bucket, inside, params):
    states = scatter(bucket, params)
    group_of = [bucket.group] * len(params)
    halves = [
        gather(
            {k: state for k, state in states.items() if (k in inside) == half},
            params,
            group_of,
        )
        for half in (True, False)
    ]
    return sorted(
        (_with_own_noise(part, bucket) for half in halves for part in half),
        key=lambda part: part.numbers[0],
    )


def _with_own_noise(part, bucket):
    first = part.numbers[0]
    if bucket.count == 0 or bucket.state_dtype is None or first == bucket.numbers[0]:
        return part
    moments = part.moments
    return part._replace(moments=moments._replace(key=leaf_key(moments.key, first)))


def _coding(state):
    """Return what moments must have in common to share an array."""
    dtype = state_dtype_of(state.moments)
    if dtype is None or state.count == 0:
        return dtype
    return dtype, str(_moments.scale_bound_key(state.moments))


def _pieces(numbers, params):
    alone: list[tuple[int, ...]] = []
    # Small parameters, by sharding and by shape.
    small: dict[Any, dict[Any, list[int]]] = {}
    for k in numbers:
        sharding = getattr(params[k], "sharding", None)
        replicated = sharding is None or sharding.is_fully_replicated
        if params[k].size > SMALL or not replicated:
            alone.append((k,))
        else:
            small.setdefault(sharding, {}).setdefault(params[k].shape, []).append(k)
    shared: list[tuple[int, ...]] = []
    for by_shape in small.values():
        rest: list[int] = []
        for same in by_shape.values():
            length = min(ALIKE, BUFFER // max(params[same[0]].size, 1))
            whole = len(same) // length * length
            shared += [tuple(same[i : i + length]) for i in range(0, whole, length)]
            rest += same[whole:]
        shared += _filled(rest, params)
    return (*alone, *shared)


def _filled(numbers, params):
    """Group parameters of any shape into pieces of up to `BUFFER` elements."""
    pieces: list[list[int]] = []
    room = 0
    for k in numbers:
        if not pieces or params[k].size > room:
            pieces.append([])
            room = BUFFER
        pieces[-1].append(k)
        room -= params[k].size
    return list(map(tuple, pieces))


def _joined(members):
    """Concatenate the moments of a piece's parameters."""
    if len(members) == 1:
        return members[0]

    def concatenate(*arrays):
        flat = np.concatenate([np.ravel(np.asarray(array)) for array in arrays])
        return put_like(arrays[0], flat)

    columns = jax.tree.map(concatenate, *map(_moments.columns, members))
    return _moments.with_columns(members[0], columns)


def _cut(row, shapes):
    """Split the moments of a piece into those of parameters with these shapes.

    NumPy does it, since JAX would compile a program for every offset.
    """
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])[:-1]
    treedef: Any
    flat, treedef = jax.tree.flatten(_moments.columns(row))
    parts = [
        [
            put_like(array, part.reshape(shape))
            for part, shape in zip(np.split(np.array(array), ends), shapes, strict=True)
        ]
        for array in flat
    ]
    return [
        _moments.rows(_moments.with_columns(row, treedef.unflatten(own)))[0]
        for own in zip(*parts, strict=True)
    ]
