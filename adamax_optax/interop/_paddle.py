"""Convert state to and from the state dicts of `paddle.optimizer.Adamax`."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from adamax_optax._arrays import to_numpy
from adamax_optax._checks import check_decay_rate
from adamax_optax.interop._states import open_state
from adamax_optax.interop._transfer import (
    Convert,
    Order,
    Saved,
    Words,
    names_in,
    put,
    read_named,
    take,
)

_WORDS = Words("step", "{}_moment", "{}_inf_norm")
_POWER = "{}_beta1_pow_acc"
_LEAST = float(np.finfo(np.float32).tiny)


def from_paddle(
    state_dict: Mapping[str, Any],
    opt_state: Any,
    *,
    order: Order | None = None,
    convert: Convert | None = None,
    b1: float = 0.9,
) -> Any:
    """Put the state dict of `paddle.optimizer.Adamax` into a state of this package.

    PaddlePaddle adds its epsilon in a place of its own: docs/rules.md gives the chain
    that takes the same steps. Its state dict does not have the network's names, and
    only its convolutions have PyTorch's layout: docs/interop.md shows an `order` and a
    `convert` for that.

    Args:
      state_dict: A mapping from names to arrays or tensors, as saved.
      opt_state: The state to fill; see `from_torch`.
      order: As in `from_torch`: a mapping from PaddlePaddle's names, or a sequence in
        the order of the state dict. Parameters that took no step are not in the state
        dict: only a mapping can name them. By default parameters are matched by name,
        or by number if the leaves are those of a list.
      convert: As in `from_torch`.
      b1: The optimizer's beta1. PaddlePaddle does not save the step count t but
        b1^(t + 1) in float32, from which t is computed. At 0.9 it underflows after 828
        steps, and t stops there. The bias correction is 1 long before, but a schedule
        would lag: set its count with `optax.tree_utils.tree_set`.

    Returns:
      The filled state; see `from_torch`.

    Raises:
      ValueError: If `b1` is out of range, or listing everything that is missing, left
        over or does not fit.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp, numpy as np, optax
      >>> saved = {
      ...     "linear_0.b_0_moment_0": np.ones(2),
      ...     "linear_0.b_0_inf_norm_0": np.ones(2),
      ...     "linear_0.b_0_beta1_pow_acc_0": np.float32([0.9**4]),
      ... }
      >>> state = ao.interop.from_paddle(
      ...     saved, ao.adamax().init([jnp.ones(2)]), b1=0.9
      ... )
      >>> int(optax.tree_utils.tree_get(state, "count"))
      3
    """
    check_decay_rate("b1", b1)
    # PaddlePaddle numbers the arrays of optimizers in one process.
    values = {re.sub(r"_\d+$", "", key): value for key, value in state_dict.items()}
    problems: list[str] = []
    entries = read_named({**values, _WORDS.step: 0}, _WORDS, problems)
    for name, entry in entries.items():
        power = _POWER.format(name)
        if power not in values:
            problems.append(f"there is no {power!r}")
            continue
        try:
            step = _steps(to_numpy(values[power]), b1)
            entries[name] = entry._replace(step=step)
        except ValueError as error:
            problems.append(f"{power!r} {error}")
    names = names_in(values, _WORDS)
    if isinstance(order, Mapping):  # others took no step
        names += [name for name in order if name not in names]
    saved = Saved(
        "The state dict", names, {name: name for name in names}, entries, problems
    )
    return put(saved, opt_state, order, convert)


def to_paddle(
    state: Any,
    *,
    order: Order | None = None,
    convert: Convert | None = None,
    b1: float = 0.9,
) -> dict[str, np.ndarray]:
    """Turn a state of this package into a state dict for `paddle.optimizer.Adamax`.

    docs/interop.md shows how to load it there.

    Args:
      state: See `to_torch`.
      order: As in `from_paddle`; it also supplies PaddlePaddle's names, which by
        default are those of the leaves.
      convert: As in `to_torch`.
      b1: The optimizer's beta1.

    Returns:
      NumPy arrays by PaddlePaddle's names, as the first optimizer of a process has
      them: ``*_moment_0``, ``*_inf_norm_0`` and ``*_beta1_pow_acc_0``.

    Raises:
      ValueError: If `b1` is out of range, or listing everything that does not fit.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> state = ao.adamax().init({"fc": {"bias": jnp.ones(2)}})
      >>> sorted(ao.interop.to_paddle(state))
      ['fc.bias_beta1_pow_acc_0', 'fc.bias_inf_norm_0', 'fc.bias_moment_0']
    """
    check_decay_rate("b1", b1)
    opened = open_state(state)
    names = list(opened.names if order is None else order)
    entries = take(opened, names, {name: name for name in names}, order, convert)
    arrays = {}
    for name, entry in entries.items():
        if entry is None:  # a leaf of the class that took no step
            continue
        arrays[_WORDS.mu.format(name) + "_0"] = entry.mu
        arrays[_WORDS.nu.format(name) + "_0"] = entry.nu
        power = float(np.float32(b1)) ** (entry.step + 1)
        arrays[_POWER.format(name) + "_0"] = np.full([1], power, np.float32)
    return arrays


def _steps(power, b1):
    """Return t, given β1^(t + 1) in float32; raise `ValueError` if it is none."""
    valid = power.size == 1 and 0 <= power.item() <= np.float32(b1)
    if valid and b1 == 0:
        return 0
    if valid:
        log_b1 = math.log(np.float32(b1))
        exponent = math.log(max(power.item(), _LEAST)) / log_b1
        # Each of the multiplications may have changed the logarithm by 1e-7.
        rounded = 1e-3 - 1e-7 * exponent / log_b1
        valid = power.item() <= _LEAST or abs(exponent - round(exponent)) < rounded
    if not valid:
        raise ValueError(f"must be a power of b1={b1!r}, got {power!r}")
    return round(exponent) - 1
