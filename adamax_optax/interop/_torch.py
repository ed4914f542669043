"""Convert state to and from PyTorch's `torch.optim.Adamax`."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from adamax_optax._arrays import to_numpy
from adamax_optax._torch_layout import (
    STEPS_TAKEN,
    is_state_dict,
    parameters,
    read_entries,
    require_state_dict,
    write_entry,
)
from adamax_optax.interop._states import open_state
from adamax_optax.interop._transfer import Convert, Order, Saved, put, take

_DEFAULTS: dict[str, Any] = {
    "betas": (0.9, 0.999),
    "eps": 1e-8,
    "weight_decay": 0.0,
    "maximize": False,
}


def from_torch(
    state_dict: Mapping[str, Any],
    opt_state: Any,
    *,
    order: Order | None = None,
    convert: Convert | None = None,
) -> Any:
    """Put a state dict of `torch.optim.Adamax` into a state of this package.

    The state has no hyperparameters: pass those of PyTorch's optimizer to
    `adamax_optax.adamax`.

    Args:
      state_dict: The result of ``optimizer.state_dict()``; tensors or NumPy arrays.
      opt_state: The state to fill: either a functional state such as
        ``tx.init(params)``, of any `state_dtype` and however deeply nested in chains
        and wrappers, or a state dict of `adamax_optax.Adamax`, to pass to its
        `load_state_dict`.
      order: The name of the leaf (`leaf_names`) for each parameter, or `None` if it has
        none: a mapping from PyTorch's numbers or names, or a sequence in PyTorch's
        order. PyTorch's own name will do if it differs only in Flax's word for
        ``weight``, so often ``[name for name, _ in net.named_parameters()]`` is enough.
        By default parameters are matched by name if the state dict (thanks to
        `named_parameters`) and the leaves have names, and otherwise by number.
      convert: A function from a leaf's name and PyTorch's array to an array in the
        leaf's layout; see `kernels_to_flax`.

    Returns:
      The state as if it had taken PyTorch's steps: with PyTorch's moments and step
      counts, also in schedules, and otherwise unchanged. Arrays are new, and have the
      shardings of those in `opt_state`.

    Raises:
      ValueError: Listing everything that is missing, left over or does not fit. This
        includes parameters without state if others have some, since the leaves of a
        functional state share one step count.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp, numpy as np, optax
      >>> entry = {"step": 3.0, "exp_avg": np.ones((2, 4)), "exp_inf": np.ones((2, 4))}
      >>> saved = {"state": {0: entry}, "param_groups": [{"lr": 0.1, "params": [0]}]}
      >>> tx = ao.adamax(learning_rate=0.1)
      >>> state = ao.interop.from_torch(
      ...     saved,
      ...     tx.init({"kernel": jnp.ones((4, 2))}),
      ...     convert=ao.interop.kernels_to_flax,
      ... )
      >>> mu = optax.tree_utils.tree_get(state, "mu")
      >>> mu["kernel"].shape, int(optax.tree_utils.tree_get(state, "count"))
      ((4, 2), 3)
    """
    require_state_dict(state_dict)
    keys, names = parameters(state_dict)
    problems: list[str] = []
    entries = read_entries(state_dict, lambda key: f"parameter {key!r}", problems)
    saved = Saved("The state dict", keys, names, entries, problems)
    return put(saved, opt_state, order, convert)


def to_torch(
    state: Any,
    *,
    param_groups: Sequence[Mapping[str, Any]] | None = None,
    order: Order | None = None,
    convert: Convert | None = None,
    lr: float | None = None,
    betas: tuple[float, float] | None = None,
    eps: float | None = None,
    weight_decay: float | None = None,
    maximize: bool | None = None,
) -> dict[str, Any]:
    """Turn a state of this package into a state dict for `torch.optim.Adamax`.

    PyTorch reads hyperparameters from the state dict, and a functional state has none
    (except under `optax.inject_hyperparams`). It is safest to take them from the
    optimizer that will load the state:

    .. code-block:: python

        optimizer = torch.optim.Adamax(net.parameters(), lr=0.1, weight_decay=0.01)
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict(ao.interop.to_torch(state, param_groups=groups))

    Args:
      state: A functional state, of any `state_dtype` and depth, or a state dict of
        `adamax_optax.Adamax`, which has hyperparameters and groups of its own.
      param_groups: PyTorch's groups, as above. By default a functional state becomes
        one group with all parameters.
      order: As in `from_torch`.
      convert: A function from a leaf's name and array to an array in PyTorch's layout;
        see `kernels_from_flax`.
      lr: Learning rate of all groups; needed for a functional state without
        `param_groups`.
      betas: Decay rates. By default those of the groups or the state, if it has any,
        or else of `adamax_optax.adamax`; likewise for the next three.
      eps: Added inside the maximum.
      weight_decay: Coefficient of the coupled L2 penalty. PyTorch's Adamax has no
        decoupled decay, as in `adamax_optax.adamaxw`.
      maximize: Whether to ascend.

    Returns:
      ``{"state": ..., "param_groups": ...}`` with tensors on the CPU. Parameters that
      took no step have no entry.

    Raises:
      ValueError: If lr is unknown, if the state is known to have an `eps_outside`, or
        listing everything that does not fit.
    """
    import torch

    given: dict[str, Any] = dict(
        lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize
    )
    given = {name: value for name, value in given.items() if value is not None}
    opened = open_state(state)
    if param_groups is not None:
        groups = copy.deepcopy(list(param_groups))
        require_state_dict({"state": {}, "param_groups": groups})
        keys, names = parameters({"param_groups": groups})
    elif is_state_dict(state):
        groups = list(map(_options, state["param_groups"]))
        keys, _ = parameters(state)
        names = _names_in(order, keys)
    else:
        options = {**_DEFAULTS, **_known(state), **given}
        if "lr" not in options:
            raise ValueError(
                "A functional state does not know its learning rate: pass lr, or the "
                "param_groups of the optimizer that will load it."
            )
        keys = list(range(len(opened.names if order is None else order)))
        names = _names_in(order, keys)
        groups = [{**options, "params": keys}]
    groups = [{**group, **given} for group in groups]
    entries = take(opened, keys, names, order, convert)
    return {
        "state": {
            key: write_entry(entry, torch.tensor)
            for key, entry in entries.items()
            if entry is not None and entry.step > 0
        },
        "param_groups": groups,
    }


def _names_in(order, keys):
    """Return parameters' names from `order`, if it maps names and not numbers."""
    if isinstance(order, Mapping) and not set(order) <= set(keys):
        return dict(zip(keys, order, strict=False))
    return {}


def _options(group):
    """Return a group with plain numbers, without names and what only the class has."""
    ours = ("params", "param_names", STEPS_TAKEN, "state_dtype", "lazy_rows")
    options = {k: v for k, v in group.items() if k not in ours}
    options = jax.tree.map(_plain, options)
    return {**options, "params": list(group["params"])}


def _plain(x):
    """Return an array as a number or a tuple: `torch.load` refuses other types."""
    if not hasattr(x, "tolist"):
        return x
    return x.item() if np.size(x) == 1 else tuple(x.tolist())


def _known(opt_state):
    """Return the hyperparameters in the state of `optax.inject_hyperparams`, if any."""
    nodes = jax.tree.leaves(opt_state, is_leaf=_has_hyperparameters)
    found = list(filter(_has_hyperparameters, nodes))
    if len(found) != 1:
        return {}
    values = {k: to_numpy(v).item() for k, v in found[0].hyperparams.items()}
    if values.get("eps_outside"):
        raise ValueError(
            "PyTorch adds its epsilon inside the maximum, so it cannot continue a run "
            f"with eps_outside={values['eps_outside']!r}."
        )
    known = {name: values[name] for name in _DEFAULTS if name in values}
    if "learning_rate" in values:
        known["lr"] = values["learning_rate"]
    if "b1" in values and "b2" in values:
        known["betas"] = (values["b1"], values["b2"])
    return known


def _has_hyperparameters(x):
    return "hyperparams" in getattr(x, "_fields", ())
