"""Which parameters a compiled step has, and which of them it stacks.

With thousands of small parameters, a program that takes and returns an array for each
moment spends its time passing arrays. So the moments of small parameters of one shape
are stacked, whatever their groups and step counts, and `jax.vmap` steps them together.
Larger parameters would lose more by the copies than they gain. Parameters on a mesh
could not share an array without communication.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from adamax_optax._stacks import stacks_of

_ONE_DEVICE = jax.sharding.SingleDeviceSharding


class Spec(NamedTuple):
    """Static facts about a parameter.

    Attributes:
      shape: Its shape.
      dtype: Its dtype.
      sharding: Its sharding, if it is on a mesh.
      group: The number of its group.
      state_dtype: The `state_dtype` of its moments, as a dtype.
      decays: Whether its group has a weight decay. Without one, the program need not
        read the parameters to update the moments.
      lazy_rows: Whether rows without gradient stay as they are.
      in_tree: Whether the array is in a tree; if not, a step stores the new one in a
        variable of NNX itself.
    """

    shape: tuple[int, ...]
    dtype: Any
    sharding: Any
    group: int
    state_dtype: Any
    decays: bool
    lazy_rows: bool
    in_tree: bool


class Piece(NamedTuple):
    """Parameters whose moments are kept and stepped together.

    Attributes:
      numbers: The numbers of the parameters.
      stacked: Whether their arrays are stacked; if not, there is only one parameter.
      start: The number of parameters in the pieces before it.
    """

    numbers: tuple[int, ...]
    stacked: bool
    start: int


def pieces_of(specs: Sequence[Spec]) -> tuple[Piece, ...]:
    """Divide parameters into pieces."""
    stacks = stacks_of(
        None
        if spec.sharding is not None
        else (spec.shape, spec.dtype, spec.state_dtype, spec.decays, spec.lazy_rows)
        for spec in specs
    )
    pieces: list[Piece] = []
    start = 0
    for numbers in stacks:
        pieces.append(Piece(tuple(numbers), len(numbers) > 1, start))
        start += len(numbers)
    return tuple(pieces)


def on_cpu(arrays: Sequence[Any]) -> bool:
    """Return whether all arrays are on CPUs, or will be once JAX places them."""
    placed = [array for array in arrays if isinstance(array, jax.Array)]
    if not placed:
        return jax.default_backend() == "cpu"
    return all(d.platform == "cpu" for array in placed for d in array.devices())


def sharding_of(array: Any) -> Any:
    """Return an array's sharding if it is on a mesh, and else `None`."""
    sharding = getattr(array, "sharding", None)
    return None if isinstance(sharding, _ONE_DEVICE | None) else sharding
