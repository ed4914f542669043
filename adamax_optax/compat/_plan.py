"""Which parameters a compiled step has, and which of them it stacks.

With thousands of small parameters, a program that takes and returns an array for each
moment spends its time passing arrays. So the moments of small parameters of one shape
are stacked, whatever their groups and step counts, and `jax.vmap` steps them together.
Parameters on a mesh could not share an array without communication.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import SingleDeviceSharding

from adamax_optax._stacks import stacks_of


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
    """Parameters whose moments are kept and stepped together: stacked, or just one."""

    numbers: tuple[int, ...]
    start: int  # the number of parameters in the pieces before it


def pieces_of(specs: Sequence[Spec]) -> tuple[Piece, ...]:
    stacks = stacks_of(
        None
        if spec.sharding is not None
        else (spec.shape, spec.dtype, spec.state_dtype, spec.decays, spec.lazy_rows)
        for spec in specs
    )
    starts = itertools.accumulate(map(len, stacks), initial=0)
    return tuple(map(Piece, map(tuple, stacks), starts))


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
