"""The optimizer's state in the layout of PyTorch's state dicts."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamax_optax._arrays import cast_like, is_tensor, joined, to_numpy
from adamax_optax._checks import refuse
from adamax_optax._torch_layout import (
    Entry,
    number_of,
    parameters,
    read_entries,
    require_state_dict,
    write_entry,
)
from adamax_optax.compat import _hyperparameters, _moments
from adamax_optax.compat._parameters import Path, label
from adamax_optax.compat._plan import Spec
from adamax_optax.moments import ScaleByInfinityNormState, codec_for


def save(
    groups: Sequence[Mapping[str, Any]],
    sizes: Sequence[int],
    states: Sequence[_moments.ParamState],
    specs: Sequence[Spec],
) -> dict[str, Any]:
    """Return a state dict with the arrays of `states`.

    `sizes` counts the parameters of each group.
    """
    ends = np.cumsum(sizes).tolist()
    return {
        "state": {
            number: {
                **write_entry(_decoded(state, spec), joined),
                **_moments.scale_bound_key(state.moments),
            }
            for number, (state, spec) in enumerate(zip(states, specs, strict=True))
            if state.count > 0
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
    """Return the options of each group in a state dict, checked.

    `sizes` are the numbers of parameters that the groups must have, and `defaults` the
    options to use where the dict has none.
    """
    require_state_dict(state_dict)
    groups = state_dict["param_groups"]
    if any("params" not in group for group in groups):
        raise ValueError(f"A saved group lacks 'params', got {groups!r}.")
    saved_sizes = [len(group["params"]) for group in groups]
    if saved_sizes != list(sizes):
        raise ValueError(
            f"The saved groups must have {list(sizes)} parameters, like the "
            f"optimizer's; they have {saved_sizes}."
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
) -> list[_moments.ParamState]:
    """Return the states in a state dict that `load_groups` has accepted.

    For each of `params`, `paths` has its path and `options` its group's options from
    `load_groups`. A `ValueError` lists everything that is missing, surplus, or of
    another shape or kind.
    """
    numbers, _ = parameters(state_dict)
    labels = dict(zip(numbers, map(label, paths), strict=True))
    problems: list[str] = []
    saved = read_entries(state_dict, labels.__getitem__, problems)
    codings = {number_of(key): entry for key, entry in state_dict["state"].items()}
    states = list(map(_moments.init, params))
    for i, number in enumerate(numbers):
        if number in saved:
            entry, name = saved[number], labels[number]
            mu, nu = _moments.columns(states[i].moments)
            moments = ScaleByInfinityNormState(
                mu=_like(mu, entry.mu, f"exp_avg of {name}", problems),
                nu=_like(nu, entry.nu, f"exp_inf of {name}", problems),
            )
            states[i] = _moments.ParamState(moments, entry.step)
            dtype = options[i].get("state_dtype")
            restoring = _numbers(codings[number], mu, name, dtype, problems)
            if restoring and not problems:
                states[i] = _moments.restored(states[i], dtype, restoring)
    refuse("The state dict", problems)
    return states


def _decoded(state, spec):
    """Return a parameter's entry, with its moments in at least float32."""
    decoded = _moments.cast(state, spec._replace(state_dtype=None), 0)
    return Entry(state.count, *_moments.columns(decoded.moments))


def _like(value, array, name, problems):
    """Return a saved array in the form of `value`, a list of one moment.

    If it does not fit, add the reason to `problems`.
    """
    try:
        return [cast_like(value[0], array)]
    except ValueError as error:
        problems.append(f"the saved {name} {error}")
        return value


# A check and its description for each number saved beside decoded moments. The upper
# ends are included because PyTorch rounds the numbers if they are tensors.
_VALID = {
    "scale": (lambda x: (0.5 <= x) & (x <= 2), "one number in [0.5, 2]"),
    "bound": (lambda x: (0 < x) & (x <= 64), "one number in (0, 64]"),
    "key": (
        lambda x: (0 <= x) & (x <= 2**32) & (x % 1 == 0),
        "one whole number of 32 bits",
    ),
}


def _numbers(entry, moment, name, dtype, problems):
    """Return the numbers that restore an entry's codes, or {} if it lacks any."""
    if dtype is None:
        return {}
    wanted = [*_VALID] if codec_for(dtype).bounded else ["scale", "key"]
    if not set(wanted) <= set(entry):
        return {}
    leaves = len(jax.tree.leaves(moment))  # two of a complex parameter
    numbers = {}
    for key in wanted:
        value = to_numpy(entry[key])
        is_valid, allowed = _VALID[key]
        is_real = value.dtype.kind in "iuf" and value.size in (1, leaves)
        if is_real and np.all(is_valid(value.astype(np.float64))):
            numbers[key] = value
        else:
            problems.append(
                f"the saved {key} of {name} must be {allowed}, got {entry[key]!r}"
            )
    return {**numbers, "key": int(numbers.get("key", np.zeros(1)).item()) % 2**32}


def _saved_options(group):
    options = {k: copy.deepcopy(v) for k, v in group.items() if k != "params"}
    if options.get("state_dtype") is not None:
        # The name, since JSON cannot hold the type.
        options["state_dtype"] = jnp.dtype(options["state_dtype"]).name
    return options


def _option(value):
    return to_numpy(value) if is_tensor(value) else copy.deepcopy(value)
