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
    decoded: Sequence[_moments.Moments],
) -> dict[str, Any]:
    """Return a state dict, a deep copy.

    Args:
      groups: The optimizer's groups.
      sizes: How many parameters each has.
      moments: Those of all parameters, in order, each as its group keeps them.
      decoded: The same with no `state_dtype`.
    """
    ends = np.cumsum(sizes).tolist()
    return {
        "state": {
            number: {
                "step": jnp.asarray(entry.count, jnp.float32),
                "exp_avg": _copied(entry.norm.mu),
                "exp_inf": _copied(entry.norm.nu),
                **_moments.coding(kept),
            }
            for number, (entry, kept) in enumerate(zip(decoded, moments, strict=True))
            if entry.count > 0
        },
        "param_groups": [
            {**_saved_options(group), "params": list(range(end - size, end))}
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
    state_dict: Mapping[str, Any],
    params: Sequence[Any],
    paths: Sequence[Path],
    options: Sequence[Mapping[str, Any]],
) -> list[_moments.Moments]:
    """Return the moments in a state dict whose groups have been looked at.

    Args:
      state_dict: The dict.
      params: The optimizer's parameters, in order.
      paths: Their paths, for errors.
      options: What `load_groups` returned, for each parameter.

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
        _load(saved[number], moments, path, own) if number in saved else moments
        for number, moments, path, own in zip(
            numbers, fresh, paths, options, strict=True
        )
    ]


def _load(entry, moments, path, options):
    """Return the moments in one parameter's entry, whose fresh ones are given."""
    missing = [key for key in _KEYS if key not in entry]
    if missing:
        raise ValueError(
            f"The saved state of {label(path)} lacks {missing}; it has {list(entry)}."
        )
    count = _number(entry, "step", path, "whole number of at least 0", _is_whole)
    norm = ScaleByInfinityNormState(
        mu=_like(moments.norm.mu, _to_numpy(entry["exp_avg"]), "exp_avg", path),
        nu=_like(moments.norm.nu, _to_numpy(entry["exp_inf"]), "exp_inf", path),
    )
    loaded = _moments.Moments(norm, int(count))
    # Without these, as from PyTorch, moments are coded anew at the next step.
    if options.get("state_dtype") is None or not {"scale", "key"} <= set(entry):
        return loaded
    # As tensors, PyTorch has rounded them, perhaps up to 2 and to 2^32.
    scale = _number(entry, "scale", path, "number in [0.5, 2]", lambda x: 0.5 <= x <= 2)
    key = _number(
        entry,
        "key",
        path,
        "whole number of 32 bits",
        lambda x: _is_whole(x) and x <= 2**32,
    )
    hyper = _hyperparameters.to_functional(options)
    return _moments.encoded(
        loaded,
        options["state_dtype"],
        b1=hyper["b1"],
        b2=hyper["b2"],
        scale=scale,
        key=int(key) % 2**32,
    )


def _number(entry, key, path, wanted, fits):
    """Return an entry of a parameter as a Python number that fits."""
    value = _to_numpy(entry[key])
    if value.size != 1 or not fits(value.item()):
        raise ValueError(
            f"The saved {key} of {label(path)} must be one {wanted}, got "
            f"{entry[key]!r}."
        )
    return value.item()


def _is_whole(x):
    return x >= 0 and float(x).is_integer()


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
        _moments.placed_as(part.astype(leaf.dtype), leaf)
        for part, leaf in zip(parts, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, arrays)


def _copied(value):
    # The next step uses up the arrays themselves.
    parts = [jnp.array(part, copy=True) for part in jax.tree.leaves(value)]
    return parts[0] if len(parts) == 1 else jax.lax.complex(*parts)


def _saved_options(group):
    options = {k: copy.deepcopy(v) for k, v in group.items() if k != "params"}
    if options.get("state_dtype") is not None:
        # By its name: the type itself fits into no JSON.
        options["state_dtype"] = jnp.dtype(options["state_dtype"]).name
    return options


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
