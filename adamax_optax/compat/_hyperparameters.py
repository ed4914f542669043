"""Hyperparameters of groups: checked, translated to the functional names, packed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamax_optax._arrays import is_array, is_tensor, to_numpy
from adamax_optax._checks import check_flag, check_range
from adamax_optax.moments import codec_for

_ARGUMENTS = ("learning_rate", "b1", "b2", "eps", "weight_decay", "maximize")
_PLAIN = frozenset((bool, float, int, type(None)))


def check(group: Mapping[str, Any], dtype: Any, *, look: bool) -> None:
    """Raise `ValueError` unless a group has all hyperparameters, and in range.

    They are used in `dtype`, where a rate just below 1 may be 1. With `look`, the
    values of JAX arrays are checked too, which waits for them.
    """
    names = ("lr", "betas", "eps", "weight_decay", "maximize")
    if missing := [name for name in names if name not in group]:
        raise ValueError(
            f"A parameter group must have all hyperparameters, but one lacks {missing}."
            " Assign them, or append a new dict, which gets the defaults."
        )
    for name in ("lr", "eps", "weight_decay"):
        _check_number(name, group[name], look=look)
    betas = group["betas"]
    is_pair = is_array(betas) and betas.shape == (2,)
    if not is_pair and (not isinstance(betas, Sequence) or len(betas) != 2):
        raise ValueError(f"betas must be two numbers in [0, 1), got {betas!r}.")
    for i, beta in enumerate(betas):
        _check_number(f"betas[{i}]", beta, below=1.0, look=look)
        beta = _scalar(beta)
        if (look or not isinstance(beta, jax.Array)) and dtype(beta) == 1:
            raise ValueError(
                f"betas[{i}] must be below 1, but {beta!r} is 1 in "
                f"{np.dtype(dtype).name}, in which it is used. The largest value below "
                f"1 is {np.nextafter(dtype(1), dtype(0))}."
            )
    # `maximize` is an array if a whole state dict was converted to arrays.
    check_flag("maximize", _scalar(group["maximize"]))
    check_flag("lazy_rows", _scalar(group.get("lazy_rows", False)))
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


def pack(groups: Sequence[Mapping[str, Any]], place: Any) -> tuple[jax.Array, ...]:
    """Return an array of `_ARGUMENTS` for each group, on the devices of `place`.

    New values, of any type, need no recompilation, and one array for a group costs less
    to pass than many. (XLA would compile a program of its own for each row of a common
    array.) No step waits for the values of JAX arrays.
    """
    table = np.zeros((len(groups), len(_ARGUMENTS)), jnp.result_type(float))
    unknown = []
    for i, group in enumerate(map(to_functional, groups)):
        for j, name in enumerate(_ARGUMENTS):
            if isinstance(group[name], jax.Array):
                unknown.append((i, j, group[name]))
            else:
                table[i, j] = group[name]
    packed = jax.device_put(list(table), place)
    for i, j, value in unknown:
        here = jax.device_put(np.arange(len(_ARGUMENTS)) == j, place)
        packed[i] = jnp.where(here, value.astype(table.dtype), packed[i])
    return tuple(packed)


def kind(group: Mapping[str, Any]) -> tuple[Any, bool, bool]:
    """Return the hyperparameters of a group that are compiled into a step.

    They are the `state_dtype`, as a dtype; whether there is a weight decay: `False`
    only for the number 0; and `lazy_rows`.
    """
    decay, dtype = _scalar(group["weight_decay"]), group.get("state_dtype")
    decays = isinstance(decay, jax.Array) or bool(decay)
    lazy = bool(_scalar(group.get("lazy_rows", False)))
    return None if dtype is None else jnp.dtype(dtype), decays, lazy


def unpack(row: Any) -> dict[str, Any]:
    """Return the arguments of one group from its array in `pack`."""
    arguments = dict(zip(_ARGUMENTS, row, strict=True))
    return {**arguments, "maximize": arguments["maximize"] != 0}


def fingerprint(groups: Sequence[Mapping[str, Any]]) -> list[Any] | None:
    """Return a list that is equal as long as no hyperparameter changes.

    `None` if one is missing or malformed.
    """
    values = []
    for group in groups:
        try:
            b1, b2 = group["betas"]
            values += [group["lr"], b1, b2, group["eps"], group["weight_decay"]]
            values += [group["maximize"], group.get("state_dtype")]
            values += [group.get("lazy_rows", False)]
        except (KeyError, TypeError, ValueError):
            return None
    if _PLAIN.issuperset(map(type, values)):
        return values
    return list(map(_comparable, values))


def _comparable(value: Any) -> Any:
    if isinstance(value, jax.Array):
        return _Same(value)
    value = _array(value)
    # NumPy arrays may be changed in place.
    return value.tolist() if isinstance(value, np.ndarray) else value


class _Same:
    """Equal only for the same object; its values are not compared."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other._value is self._value


def _check_number(
    name: str, value: Any, *, look: bool, below: float = math.inf
) -> None:
    value = _scalar(value)
    check_range(name, value, below=below)
    if look and isinstance(value, jax.Array):
        check_range(name, np.asarray(value), below=below)


def _scalar(value: Any) -> Any:
    """Return an array or tensor of one element with shape (); others as they are."""
    value = _array(value)
    return value.reshape(()) if is_array(value) and value.size == 1 else value


def _array(value: Any) -> Any:
    """Return a tensor of PyTorch or MindSpore as an array, and others as they are."""
    return to_numpy(value) if is_tensor(value) else value
