"""The optimizer's state in the layout of PyTorch's state dicts."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamax_optax._infinity_norm import ScaleByInfinityNormState
from adamax_optax.compat import _hyperparameters, _moments
from adamax_optax.compat._parameters import Path, is_inexact, label

_KEYS = ("step", "exp_avg", "exp_inf")


def save(
    groups: Sequence[Mapping[str, Any]],
    sizes: Sequence[int],
    moments: Sequence[_moments.Moments],
) -> dict[str, Any]:
    """Return a state dict, a deep copy.

    Args:
      groups: The optimizer's groups.
      sizes: How many parameters each has.
      moments: Those of all parameters, in order, with no `state_dtype`.
    """
    ends = np.cumsum(sizes).tolist()
    return {
        "state": {
            number: {
                "step": jnp.asarray(entry.count, jnp.float32),
                "exp_avg": _copied(entry.norm.mu),
                "exp_inf": _copied(entry.norm.nu),
            }
            for number, entry in enumerate(moments)
            if entry.count > 0
        },
        "param_groups": [
            {
                **copy.deepcopy({k: v for k, v in group.items() if k != "params"}),
                "params": list(range(end - size, end)),
            }
            for group, size, end in zip(groups, sizes, ends, strict=True)
        ],
    }


def load_groups(
    state_dict: Mapping[str, Any],
    sizes: Sequence[int],
    defaults: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return what a state dict has in its groups, without the parameters.

    Args:
      state_dict: The dict.
      sizes: How many parameters each group must have.
      defaults: The options that each group may lack.

    Raises:
      ValueError: If the dict is none, or a size or a hyperparameter does not fit.
    """
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(
        state_dict
    ):
        raise ValueError(
            "A state dict must have the keys 'state' and 'param_groups', got "
            f"{list(state_dict) if isinstance(state_dict, Mapping) else state_dict!r}."
        )
    groups = state_dict["param_groups"]
    if any("params" not in group for group in groups):
        raise ValueError(f"A saved group lacks 'params', got {groups!r}.")
    saved_sizes = [len(group["params"]) for group in groups]
    if saved_sizes != list(sizes):
        raise ValueError(
            f"The saved groups must have {list(sizes)} parameters, as the optimizer's "
            f"have; they have {saved_sizes}."
        )
    loaded = []
    for group, missing in zip(groups, defaults, strict=True):
        options = {k: _option(v) for k, v in group.items() if k != "params"}
        loaded.append({**copy.deepcopy(dict(missing)), **options})
        _hyperparameters.check(loaded[-1], look=True)
    return loaded


def load_moments(
    state_dict: Mapping[str, Any], params: Sequence[Any], paths: Sequence[Path]
) -> list[_moments.Moments]:
    """Return the moments in a state dict whose groups have been looked at.

    Args:
      state_dict: The dict.
      params: The optimizer's parameters, in order.
      paths: Their paths, for errors.

    Raises:
      ValueError: If something is missing, left over or of another shape or kind.
    """
    # Numbers become strings in JSON, and arrays where a whole tree is made of arrays.
    saved = {int(k): entry for k, entry in state_dict["state"].items()}
    numbers = [int(k) for group in state_dict["param_groups"] for k in group["params"]]
    if surplus := set(saved) - set(numbers):
        raise ValueError(
            f"The saved state has entries for {list(surplus)}, which stand in no group."
        )
    fresh = _moments.init(params)
    return [
        _load(saved[number], moments, path) if number in saved else moments
        for number, moments, path in zip(numbers, fresh, paths, strict=True)
    ]


def _load(entry, moments, path):
    """Return one parameter's entry in the form of its fresh moments."""
    missing = [key for key in _KEYS if key not in entry]
    if missing:
        raise ValueError(
            f"The saved state of {label(path)} lacks {missing}; it has {list(entry)}."
        )
    count, mu, nu = (_to_numpy(entry[key]) for key in _KEYS)
    if count.size != 1 or not (count >= 0 and float(count).is_integer()):
        raise ValueError(
            f"The saved step of {label(path)} must be one whole number of at least 0, "
            f"got {entry['step']!r}."
        )
    norm = ScaleByInfinityNormState(
        mu=_like(moments.norm.mu, mu, "exp_avg", path),
        nu=_like(moments.norm.nu, nu, "exp_inf", path),
    )
    return _moments.Moments(norm, int(count))


def _like(value, array, key, path):
    """Return an array of NumPy in the form, dtype and sharding of a moment."""
    leaves, treedef = jax.tree.flatten(value)
    shape, is_complex = leaves[0].shape, len(leaves) == 2
    if array.shape != shape:
        raise ValueError(
            f"The saved {key} of {label(path)} must have the parameter's shape "
            f"{shape}, got {array.shape}."
        )
    if not is_inexact(array) or jnp.iscomplexobj(array) != is_complex:
        raise ValueError(
            f"The saved {key} of {label(path)} must be "
            f"{'complex' if is_complex else 'floating'}, as the parameter is, got "
            f"{array.dtype}."
        )
    parts = [array.real, array.imag] if is_complex else [array]
    # `astype` copies: the moments are donated, the saved arrays are not ours.
    arrays = [
        jax.device_put(part.astype(leaf.dtype), leaf.sharding)
        for part, leaf in zip(parts, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, arrays)


def _copied(value):
    # The next step uses up the arrays themselves.
    parts = [jnp.array(part, copy=True) for part in jax.tree.leaves(value)]
    return parts[0] if len(parts) == 1 else jax.lax.complex(*parts)


def _option(value):
    is_tensor = hasattr(value, "detach") or hasattr(value, "asnumpy")
    return _to_numpy(value) if is_tensor else copy.deepcopy(value)


def _to_numpy(value):
    """Return an array of JAX, NumPy, PyTorch or MindSpore as one of NumPy."""
    if hasattr(value, "asnumpy"):
        return np.asarray(value.asnumpy())
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        # NumPy has no bfloat16 that PyTorch would know.
        value = value.float() if value.dtype.itemsize < 4 else value
    return np.asarray(value)
