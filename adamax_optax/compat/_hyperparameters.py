"""Hyperparameters of groups: checked, translated to the functional names, packed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adamax_optax._arrays import is_array
from adamax_optax._checks import check_flag, check_range
from adamax_optax.moments import codec_for

_ARGUMENTS = ("learning_rate", "b1", "b2", "eps", "weight_decay", "maximize")
_PLAIN = frozenset((bool, float, int))


def check(group: Mapping[str, Any], *, look: bool = False) -> None:
    """Raise `ValueError` unless a group's hyperparameters are in range.

    Args:
      group: A mapping with all hyperparameters; other keys are ignored.
      look: Whether to check the values of JAX arrays too, which waits for them.
    """
    for name in ("lr", "eps", "weight_decay"):
        _check_number(name, group[name], look=look)
    betas = group["betas"]
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise ValueError(f"betas must be two numbers in [0, 1), got {betas!r}.")
    for i, beta in enumerate(betas):
        _check_number(f"betas[{i}]", beta, below=1.0, look=look)
    # It is an array if a whole state dict was converted to arrays.
    check_flag("maximize", _scalar(group["maximize"]))
    if group.get("state_dtype") is not None:
        codec_for(group["state_dtype"])


def to_functional(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group's hyperparameters as arguments of `adamax_optax.adamax`."""
    b1, b2 = group["betas"]
    return {
        "learning_rate": _scalar(group["lr"]),
        "b1": _scalar(b1),
        "b2": _scalar(b2),
        "eps": _scalar(group["eps"]),
        "weight_decay": _scalar(group["weight_decay"]),
        "maximize": bool(group["maximize"]),
    }


class Packed(NamedTuple):
    """The hyperparameters of all groups, as a compiled step takes them.

    New values, of any type, need no recompilation, and one array costs less to pass
    than many. No step waits for the values of JAX arrays.

    Attributes:
      table: An array on the device, of shape (groups, arguments).
      decays: For each group, whether it has a weight decay; `False` only for the
        number 0.
    """

    table: jax.Array
    decays: tuple[bool, ...]


def pack(groups: Sequence[Mapping[str, Any]]) -> Packed:
    """Pack the result of `to_functional` for each group."""
    table: Any = np.zeros((len(groups), len(_ARGUMENTS)))
    unknown = []
    for i, group in enumerate(groups):
        for j, name in enumerate(_ARGUMENTS):
            if isinstance(group[name], jax.Array):
                unknown.append((i, j, group[name]))
            else:
                table[i, j] = group[name]
    for i, j, value in unknown:
        table = _put(table, i, j, value)
    decays = tuple(
        isinstance(group["weight_decay"], jax.Array) or bool(group["weight_decay"])
        for group in groups
    )
    return Packed(jnp.asarray(table), decays)


def unpack(row: Any) -> dict[str, Any]:
    """Return the arguments of one group from its row of the table."""
    arguments = dict(zip(_ARGUMENTS, row, strict=True))
    return {**arguments, "maximize": arguments["maximize"] != 0}


def fingerprint(groups: Sequence[Mapping[str, Any]]) -> list[Any] | None:
    """Return a list that is equal as long as no hyperparameter changes.

    `None` if one is not a plain number: an array may be changed in place.
    """
    values = []
    for group in groups:
        betas = group["betas"]
        if type(betas) not in (tuple, list):
            return None
        values += [group["lr"], *betas, group["eps"], group["weight_decay"]]
        values += [group["maximize"], id(group.get("state_dtype")), len(betas)]
    return values if _PLAIN.issuperset(map(type, values)) else None


@jax.jit
def _put(table, i, j, value):
    return table.at[i, j].set(value.astype(table.dtype))


def _check_number(
    name: str, value: Any, *, look: bool, below: float = math.inf
) -> None:
    value = _scalar(value)
    if look and isinstance(value, jax.Array):
        value = np.asarray(value)
    check_range(name, value, below=below)


def _scalar(value: Any) -> Any:
    """Return an array of one element with shape (), and anything else as it is."""
    return value.reshape(()) if is_array(value) and value.size == 1 else value
