"""Convert state to and from MindSpore's checkpoints."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from adamax_optax._checks import check_decay_rate
from adamax_optax.interop._states import open_state
from adamax_optax.interop._transfer import (
    Convert,
    Order,
    Saved,
    Words,
    in_step,
    names_in,
    put,
    read_named,
    take,
)

_EXPERIMENTAL = Words("step_t", "exp_avg.{}", "exp_inf.{}")
_NN = Words("global_step", "moment1.{}", "moment2.{}")


def from_mindspore(
    checkpoint: Mapping[str, Any],
    opt_state: Any,
    *,
    order: Order | None = None,
    convert: Convert | None = None,
) -> Any:
    """Put a checkpoint of MindSpore's Adamax into a state of this package.

    It may be one of `mindspore.experimental.optim.Adamax` (``exp_avg.*``,
    ``exp_inf.*``, ``step_t``) or `mindspore.nn.AdaMax` (``moment1.*``, ``moment2.*``,
    ``global_step``). Other entries, such as parameters, are ignored. MindSpore and JAX
    need different versions of NumPy, so you may have to go through a file:
    docs/interop.md shows how.

    Args:
      checkpoint: A mapping from names to arrays, tensors or parameters.
      opt_state: The state to fill; see `from_torch`.
      order: As in `from_torch`: a mapping from MindSpore's names, or a sequence in the
        checkpoint's order. MindSpore's own name will do if it differs only in Flax's
        word for ``weight``, ``gamma``, ``beta`` or ``embedding_table``. By default
        parameters are matched by name, or by number if the leaves are those of a list.
      convert: As in `from_torch`.

    Returns:
      The filled state; see `from_torch`.

    Raises:
      ValueError: Listing everything that is missing, left over or does not fit.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp, numpy as np, optax
      >>> checkpoint = {
      ...     "fc.weight": np.zeros((2, 4)),
      ...     "step_t": np.int32(3),
      ...     "exp_avg.fc.weight": np.ones((2, 4)),
      ...     "exp_inf.fc.weight": np.ones((2, 4)),
      ... }
      >>> state = ao.interop.from_mindspore(
      ...     checkpoint,
      ...     ao.adamax(0.1).init({"fc": {"kernel": jnp.ones((4, 2))}}),
      ...     convert=ao.interop.kernels_to_flax,
      ... )
      >>> mu = optax.tree_utils.tree_get(state, "mu")
      >>> mu["fc"]["kernel"].shape, int(optax.tree_utils.tree_get(state, "count"))
      ((4, 2), 3)
    """
    words = _NN if names_in(checkpoint, _NN) else _EXPERIMENTAL
    names = names_in(checkpoint, words)
    problems: list[str] = []
    entries = read_named(checkpoint, words, problems)
    by_name = {name: name for name in names}
    saved = Saved("The checkpoint", names, by_name, entries, problems)
    return put(saved, opt_state, order, convert)


def to_mindspore(
    state: Any,
    *,
    order: Order | None = None,
    convert: Convert | None = None,
    nn_adamax: bool = False,
    b1: float = 0.9,
) -> dict[str, np.ndarray]:
    """Turn a state of this package into the arrays of a MindSpore checkpoint.

    It has no hyperparameters: pass the same ones to MindSpore's optimizer.
    docs/interop.md shows how to load it there.

    Args:
      state: See `to_torch`.
      order: As in `from_mindspore`; it also supplies MindSpore's names, which by
        default are those of the leaves.
      convert: As in `to_torch`.
      nn_adamax: Whether the checkpoint is for `mindspore.nn.AdaMax`, instead of
        `mindspore.experimental.optim.Adamax`.
      b1: The optimizer's b1; used only with `nn_adamax`, which saves b1^t.

    Returns:
      NumPy arrays by MindSpore's names: ``exp_avg.*``, ``exp_inf.*`` and ``step_t``, or
      ``moment1.*``, ``moment2.*``, ``global_step`` and ``beta1_power``.

    Raises:
      ValueError: If leaves have taken different numbers of steps (MindSpore has one
        count), or listing everything that does not fit.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> state = ao.adamax().init({"fc": {"bias": jnp.ones(2)}})
      >>> sorted(ao.interop.to_mindspore(state))
      ['exp_avg.fc.bias', 'exp_inf.fc.bias', 'step_t']
    """
    opened = open_state(state)
    names = list(opened.names if order is None else order)
    entries = take(opened, names, {name: name for name in names}, order, convert)
    step, stepped = in_step(entries, "MindSpore")
    words = _NN if nn_adamax else _EXPERIMENTAL
    arrays = {words.step: np.full([1] if nn_adamax else [], step, np.int32)}
    if nn_adamax:
        check_decay_rate("b1", b1)
        arrays["beta1_power"] = np.full([1], b1**step, np.float32)
    for name, entry in stepped.items():
        arrays[words.mu.format(name)] = entry.mu
        arrays[words.nu.format(name)] = entry.nu
    return arrays
