"""Which parameters a compiled step has, and which of them share arrays.

A program that takes and returns an array for each moment of a small parameter spends
its time passing arrays. So small parameters share arrays in two ways:

- those of one shape are stacked;
- the others are joined end to end. Only float32 and float64 state can be: reduced state
  has numbers for each parameter, or row.

`jax.vmap` steps them together, whatever their groups and step counts. Larger parameters
would lose more by the copies than they gain. Parameters on a mesh could not share an
array without communication.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from adamax_optax._stacks import LEAVES, stacks_of

# Parameters of up to this many elements are joined. Each element gets its own step
# count, so joining larger ones costs more than passing fewer arrays saves.
JOINED = 4096


class Spec(NamedTuple):
    """Static facts about a parameter."""

    shape: tuple[int, ...]
    dtype: Any
    sharding: Any  # if it is on a mesh, and else `None`
    group: int  # the number of its group
    state_dtype: Any  # that of its moments, as a dtype
    # Whether its group has a weight decay. Without one, the program need not read the
    # parameters to update the moments.
    decays: bool
    lazy_rows: bool  # whether rows without gradient stay as they are
    # Whether the array is in a tree; if not, a step stores the new one in a variable of
    # NNX itself.
    in_tree: bool


class Piece(NamedTuple):
    """Parameters whose moments are kept and stepped together."""

    numbers: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]  # the shape of each
    start: int  # the number of parameters in the pieces before it
    joined: bool  # whether their arrays are joined end to end, instead of stacked

    def share(self, arrays: Sequence[Any], xp: Any = jnp) -> Any:
        """Return one array with those of all parameters; `xp` may be NumPy."""
        if len(arrays) == 1:
            return arrays[0]
        if self.joined:
            return xp.concatenate([xp.ravel(array) for array in arrays])
        return xp.stack(arrays)

    def divide(self, array: Any) -> list[Any]:
        """Undo `share`."""
        if len(self.shapes) == 1:
            return [array]
        if not self.joined:
            return list(array)
        ends = list(itertools.accumulate(map(math.prod, self.shapes)))
        return [
            array[end - math.prod(shape) : end].reshape(shape)
            for end, shape in zip(ends, self.shapes, strict=True)
        ]

    def repeat(self, numbers: Any) -> Any:
        """Return the numbers of its parameter for each element of a joined array."""
        sizes = list(map(math.prod, self.shapes))
        return numbers[np.repeat(np.arange(len(sizes)), sizes)]

    def kind(self) -> "Piece":
        """Return what pieces that are stepped by the same code have in common."""
        return self._replace(numbers=(), start=0)


def pieces_of(specs: Sequence[Spec]) -> tuple[Piece, ...]:
    """Divide parameters into pieces."""
    stacks = stacks_of(
        None
        if spec.sharding is not None
        else (spec.shape, spec.dtype, spec.state_dtype, spec.decays, spec.lazy_rows)
        for spec in specs
    )
    divided = [(numbers, False) for numbers in stacks if len(numbers) > 1]
    alike: dict[Any, list[int]] = {}
    for k in (numbers[0] for numbers in stacks if len(numbers) == 1):
        key = (specs[k].dtype, specs[k].decays) if _can_be_joined(specs[k]) else k
        alike.setdefault(key, []).append(k)
    for numbers in alike.values():
        parts = [numbers[i : i + LEAVES] for i in range(0, len(numbers), LEAVES)]
        divided += [(part, len(part) > 1) for part in parts]
    pieces: list[Piece] = []
    start = 0
    for numbers, joined in divided:
        shapes = tuple(specs[k].shape for k in numbers)
        pieces.append(Piece(tuple(numbers), shapes, start, joined))
        start += len(numbers)
    return tuple(pieces)


def _can_be_joined(spec: Spec) -> bool:
    return (
        math.prod(spec.shape) <= JOINED
        and jnp.issubdtype(spec.dtype, jnp.floating)
        and (spec.sharding, spec.state_dtype, spec.lazy_rows) == (None, None, False)
    )


def on_cpu(arrays: Sequence[Any]) -> bool:
    """Return whether all arrays are on CPUs, or will be once JAX places them."""
    placed = [array for array in arrays if isinstance(array, jax.Array)]
    if not placed:
        return jax.default_backend() == "cpu"
    return all(d.platform == "cpu" for array in placed for d in array.devices())


def sharding_of(array: Any) -> Any:
    """Return an array's sharding if it is on a mesh, and else `None`."""
    sharding = getattr(array, "sharding", None)
    return None if isinstance(sharding, SingleDeviceSharding | None) else sharding
