"""The optimizer's state in the layout of PyTorch's state dicts."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from adamax_optax._infinity_norm import ScaleByInfinityNormState
from adamax_optax.compat import _hyperparameters, _moments
from adamax_optax.compat._parameters import Path, label
from adamax_optax.interop._arrays import copied, like, to_numpy
from adamax_optax.interop._names import refuse
from adamax_optax.interop._numbered import (
    number_of,
    parameters,
    read_entries,
    require_state_dict,
)


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
                "exp_avg": copied(entry.norm.mu),
                "exp_inf": copied(entry.norm.nu),
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
    require_state_dict(state_dict)
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
      ValueError: With everything that is missing, left over or of another shape or
        kind.
    """
    numbers, _ = parameters(state_dict)
    labels = dict(zip(numbers, map(label, paths), strict=True))
    problems: list[str] = []
    saved = read_entries(state_dict, labels.__getitem__, problems)
    codings = {number_of(key): entry for key, entry in state_dict["state"].items()}
    moments = _moments.init(params)
    for i, number in enumerate(numbers):
        if number in saved:
            entry, norm, name = saved[number], moments[i].norm, labels[number]
            norm = ScaleByInfinityNormState(
                mu=_like(norm.mu, entry.mu, f"exp_avg of {name}", problems),
                nu=_like(norm.nu, entry.nu, f"exp_inf of {name}", problems),
            )
            coding = _coding(codings[number], name, options[i], problems)
            moments[i] = _moments.Moments(norm, entry.step)
            if coding and not problems:
                moments[i] = _encoded(moments[i], options[i], *coding)
    refuse("The state dict", problems)
    return moments


def _like(value, array, name, problems):
    """Return a saved array in the form of a moment, a list of one; or say why not."""
    try:
        return [like(value[0], array)]
    except ValueError as error:
        problems.append(f"the saved {name} {error}")
        return value


def _coding(entry, name, options, problems):
    """Return scale and key of an entry, or nothing where moments are coded anew."""
    if options.get("state_dtype") is None or not {"scale", "key"} <= set(entry):
        return ()
    scale, key = (to_numpy(entry[k]) for k in ("scale", "key"))
    # As tensors, PyTorch has rounded them, perhaps up to 2 and to 2^32.
    if scale.size != 1 or not 0.5 <= scale.item() <= 2:
        problems.append(
            f"the saved scale of {name} must be one number in [0.5, 2], got "
            f"{entry['scale']!r}"
        )
    if key.size != 1 or not (0 <= key.item() <= 2**32 and key.item() % 1 == 0):
        problems.append(
            f"the saved key of {name} must be one whole number of 32 bits, got "
            f"{entry['key']!r}"
        )
    return () if problems else (scale.item(), int(key.item()) % 2**32)


def _encoded(moments, options, scale, key):
    hyper = _hyperparameters.to_functional(options)
    return _moments.encoded(
        moments,
        options["state_dtype"],
        b1=hyper["b1"],
        b2=hyper["b2"],
        scale=scale,
        key=key,
    )


def _saved_options(group):
    options = {k: copy.deepcopy(v) for k, v in group.items() if k != "params"}
    if options.get("state_dtype") is not None:
        # By its name: the type itself fits into no JSON.
        options["state_dtype"] = jnp.dtype(options["state_dtype"]).name
    return options


def _option(value):
    is_tensor = hasattr(value, "detach") or hasattr(value, "asnumpy")
    return to_numpy(value) if is_tensor else copy.deepcopy(value)
