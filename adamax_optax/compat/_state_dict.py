"""The optimizer's state in the layout of PyTorch's state dicts."""

import copy
import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamax_optax._arrays import cast_like, is_tensor, joined, to_numpy
from adamax_optax._checks import refuse
from adamax_optax._torch_layout import (
    STEPS_TAKEN,
    Entry,
    are_numbers,
    checked_names,
    keys_and_names,
    number_of,
    read_entries,
    require_state_dict,
    write_entry,
)
from adamax_optax.compat import _moments
from adamax_optax.compat._layout import Layout
from adamax_optax.compat._parameters import label, name
from adamax_optax.compat._plan import Spec
from adamax_optax.moments import BOUND_MAX, ScaleByInfinityNormState, codec_for

# Options of a group that a state dict of PyTorch need not have.
_OWN = ("state_dtype", "lazy_rows", "param_names")


def save(
    layout: Layout, states: Sequence[_moments.ParamState], specs: Sequence[Spec]
) -> dict[str, Any]:
    """Return a state dict with the arrays of `states`."""
    ends = np.cumsum(layout.sizes).tolist()
    steps = max((state.count for state in states), default=0)
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
            {
                **_saved_options(group, names),
                STEPS_TAKEN: steps,
                "params": list(range(end - size, end)),
            }
            for group, names, size, end in zip(
                layout.groups, _names(layout), layout.sizes, ends, strict=True
            )
        ],
    }


def load(
    state_dict: Mapping[str, Any], layout: Layout, defaults: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[_moments.ParamState]]:
    """Return the groups and the states of all parameters from a state dict.

    `defaults` are the hyperparameters to use where it has none. A `ValueError` lists
    everything that is missing, surplus, or of another shape or kind.
    """
    require_state_dict(state_dict)
    names = _names(layout)
    keys = _matched(state_dict["param_groups"], names, layout.sizes)
    groups = []
    for saved, known, group in zip(
        state_dict["param_groups"], names, layout.groups, strict=True
    ):
        own = {"params", STEPS_TAKEN, *(() if known is None else ["param_names"])}
        loaded = {k: _option(v) for k, v in saved.items() if k not in own}
        lr = loaded.get("lr")
        if isinstance(lr, float) and -1e-15 < lr < 0:
            loaded["lr"] = 0.0  # PyTorch's CosineAnnealingLR rounds below 0
        kept = {k: v for k, v in group.items() if k in ("params", *_OWN)}
        groups.append({**copy.deepcopy(dict(defaults)), **kept, **loaded})
    layout.check(groups, look=True)
    dtypes = [groups[i].get("state_dtype") for i in layout.group_of]
    return groups, _load_moments(state_dict, keys, layout, dtypes)


def _names(layout: Layout) -> list[list[str] | None]:
    """Return the names of the parameters in each group, `None` if they have none.

    A user's "param_names" come before the paths of the parameters.
    """
    groups: list[list[str] | None] = []
    problems: list[str] = []
    for i, (group, found) in enumerate(zip(layout.groups, layout.found, strict=True)):
        names = group.get("param_names")
        if names is None:
            paths = list(map(name, found.paths))
            names = paths if len(set(paths)) == len(paths) else []
        else:
            names = checked_names(names, len(found.paths), i, problems)
        groups.append(None if are_numbers(names) else names)
    refuse("The optimizer", problems)
    return groups


def _matched(
    saved: Sequence[Mapping[str, Any]],
    own_names: Sequence[list[str] | None],
    own_sizes: Sequence[int],
) -> list[Any]:
    """Return the key that each parameter has in the saved groups."""
    groups = [keys_and_names(group) for group in saved]
    sizes = [len(keys) for keys, _ in groups]
    if sizes != own_sizes:
        raise ValueError(
            f"The saved groups must have {own_sizes} parameters, like the "
            f"optimizer's; they have {sizes}."
        )
    matched, problems = [], []
    for i, ((keys, names), own) in enumerate(zip(groups, own_names, strict=True)):
        if names is None or own is None:
            matched += keys
            continue
        key_of = dict(zip(names, keys, strict=True))
        if key_of.keys() == set(own):
            matched += [key_of[x] for x in own]
            continue
        problems.append(
            f"group {i} has parameters named {[x for x in names if x not in own]}, "
            f"where the optimizer has {[x for x in own if x not in key_of]}"
        )
    if problems:
        problems.append(
            "adamax_optax.interop matches other names and layouts, such as PyTorch's; "
            "to match by order, set 'param_names' of each saved group to None and "
            "'params' to numbers"
        )
    refuse("The state dict", problems)
    return matched


def _load_moments(
    state_dict: Mapping[str, Any],
    keys: Sequence[Any],
    layout: Layout,
    dtypes: Sequence[Any],
) -> list[_moments.ParamState]:
    """Return the state of each parameter from the entry of its key.

    `dtypes` are the `state_dtype` of each.
    """
    labels = dict(zip(keys, map(label, layout.paths), strict=True))
    problems: list[str] = []
    saved = read_entries(state_dict, labels.__getitem__, problems)
    codings = {number_of(key): entry for key, entry in state_dict["state"].items()}
    groups = state_dict["param_groups"]
    had_steps = any(np.any(group.get(STEPS_TAKEN, 0)) for group in groups)
    if had_steps and not state_dict["state"]:
        problems.append(
            f"'state' is empty, although the run had taken steps: the entries of "
            f"{[*labels.values()]} were lost"
        )
    states = list(map(_moments.init, layout.read()))
    for i, (key, dtype) in enumerate(zip(keys, dtypes, strict=True)):
        if key in saved:
            entry, where = saved[key], labels[key]
            mu, nu = _moments.columns(states[i].moments)
            moments = ScaleByInfinityNormState(
                mu=_like(mu, entry.mu, f"exp_avg of {where}", problems),
                nu=_like(nu, entry.nu, f"exp_inf of {where}", problems),
            )
            states[i] = _moments.ParamState(moments, entry.step)
            restoring = _numbers(codings[key], mu, where, dtype, problems)
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
# ends are included because PyTorch rounds the numbers if they are tensors. The bound of
# a row is 0 before its first step.
_VALID = {
    "scale": (lambda x: (0.5 <= x) & (x <= 2), "one number in [0.5, 2]"),
    "bound": (
        lambda x: (0 <= x) & (x <= BOUND_MAX),
        f"one number in [0, {BOUND_MAX:g}]",
    ),
    "key": (
        lambda x: (0 <= x) & (x <= 2**32) & (x % 1 == 0),
        "one whole number of 32 bits",
    ),
}


def _numbers(entry, moment, name, dtype, problems):
    """Return the numbers that restore an entry's codes, or {} if it lacks any."""
    if dtype is None:
        return {}
    wanted = [x for x in _VALID if x != "bound" or codec_for(dtype).bounded]
    if not set(wanted) <= set(entry):
        return {}
    leaves = jax.tree.leaves(moment)  # two for a complex parameter
    rows = math.prod(leaves[0].shape[:1])
    numbers = {}
    for key in wanted:
        try:
            value = to_numpy(entry[key])
        except (TypeError, ValueError):
            value = np.empty(0)
        is_valid, allowed = _VALID[key]
        sizes = (1,) if key == "key" else (1, len(leaves), len(leaves) * rows)
        is_real = value.dtype.kind in "iuf" and value.size in sizes
        if is_real and np.all(is_valid(value.astype(np.float64))):
            numbers[key] = value
        else:
            each = f" (with lazy_rows, one for each of {rows} rows)"
            problems.append(
                f"the saved {key} of {name} must be {allowed}, got "
                f"{reprlib.repr(entry[key])}{'' if key == 'key' else each}"
            )
    return {**numbers, "key": int(numbers.get("key", np.zeros(1)).item()) % 2**32}


def _saved_options(group, names):
    options = {k: copy.deepcopy(v) for k, v in group.items() if k != "params"}
    if names is not None:
        options["param_names"] = list(names)
    if options.get("state_dtype") is not None:
        # The name, since JSON cannot hold the type.
        options["state_dtype"] = jnp.dtype(options["state_dtype"]).name
    return options


def _option(value):
    """Return a copy of an option; of a tuple or a float too, which deepcopy shares.

    A scheduler takes the object that it wrote itself for one that nobody has set since.
    """
    if isinstance(value, float):
        return value + 0.0
    if isinstance(value, tuple):
        return tuple(list(value))
    return to_numpy(value) if is_tensor(value) else copy.deepcopy(value)
