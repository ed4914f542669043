"""The hyperparameters of a group: checked, and translated to the functional names."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamax_optax._checks import check_range
from adamax_optax._reduced_norm import codes_for


def check(group: Mapping[str, Any], *, look: bool = False) -> None:
    """Raise unless a group's hyperparameters are in range.

    Args:
      group: A mapping with all hyperparameters; other keys are the user's own.
      look: Whether to look at the values of JAX arrays too, which waits for them.

    Raises:
      ValueError: Naming the argument, the value and what is allowed.
    """
    for name in ("lr", "eps", "weight_decay"):
        _check_number(name, group[name], look=look)
    betas = group["betas"]
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise ValueError(f"betas must be two numbers in [0, 1), got {betas!r}.")
    for i, beta in enumerate(betas):
        _check_number(f"betas[{i}]", beta, below=1.0, look=look)
    maximize = group["maximize"]
    # An array where a whole state dict was turned into arrays.
    is_array = isinstance(maximize, jax.Array | np.ndarray | np.bool_)
    is_flag = is_array and maximize.dtype == bool and maximize.size == 1
    if not isinstance(maximize, bool) and not is_flag:
        raise ValueError(f"maximize must be True or False, got {maximize!r}.")
    if group.get("state_dtype") is not None:
        codes_for(group["state_dtype"], *betas)


def to_functional(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `adamax_optax.adamax` that a group stands for."""
    b1, b2 = group["betas"]
    numbers_of_group = {
        "learning_rate": group["lr"],
        "b1": b1,
        "b2": b2,
        "eps": group["eps"],
        "weight_decay": group["weight_decay"],
    }
    return {
        **{name: _scalar(value) for name, value in numbers_of_group.items()},
        "maximize": bool(group["maximize"]),
    }


def to_arrays(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the functional arguments such that new values need no new compilation."""
    return {name: _array(value) for name, value in arguments.items()}


def _check_number(
    name: str, value: Any, *, look: bool, below: float = math.inf
) -> None:
    is_array = isinstance(value, jax.Array | np.ndarray)
    is_real = is_array and any(
        jnp.issubdtype(value.dtype, kind) for kind in (jnp.floating, jnp.integer)
    )
    if not (isinstance(value, numbers.Real) or is_real) or np.size(value) != 1:
        raise ValueError(
            f"{name} must be an int, a float or an array of one element, got {value!r}."
        )
    check_range(name, np.asarray(value) if look and is_array else value, below=below)


def _scalar(value: Any) -> Any:
    return value.reshape(()) if np.ndim(value) else value


def _array(value: Any) -> Any:
    if isinstance(value, jax.Array):
        return jnp.asarray(value, jnp.result_type(float))
    return np.asarray(value, bool if isinstance(value, bool) else np.float64)
