"""The layout of state dicts, which PyTorch and the class `Adamax` share.

``{"state": {0: {"step": …, "exp_avg": …, "exp_inf": …}, …}, "param_groups": [{…,
"params": [0, …]}, …]}``
"""

import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from adamax_optax._arrays import to_numpy, whole_number
from adamax_optax._checks import refuse

KEYS = ("step", "exp_avg", "exp_inf")
# An option of saved groups, which PyTorch does not have: the largest step count of all
# parameters. It tells a state whose entries were lost from one before the first step.
STEPS_TAKEN = "steps_taken"


class Entry(NamedTuple):
    """The state of one parameter, in any library."""

    step: int  # the number of steps taken
    mu: Any  # the paper's m
    nu: Any  # the paper's u


def is_state_dict(x: Any) -> bool:
    return isinstance(x, Mapping) and {"state", "param_groups"} <= set(x)


def require_state_dict(x: Any) -> None:
    """Raise `ValueError` unless `x` is built like a state dict.

    `read_entries` checks the entries of its parameters.
    """
    if not is_state_dict(x):
        raise ValueError(
            "A state dict must have the keys 'state' and 'param_groups', got "
            f"{list(x) if isinstance(x, Mapping) else x!r}."
        )
    problems: list[str] = []
    state, groups = x["state"], x["param_groups"]
    if not isinstance(groups, list | tuple):
        problems.append(f"'param_groups' must be a list, got {_short(groups)}")
        groups = []
    for i, group in enumerate(groups):
        _check_group(group, i, problems)
    if not isinstance(state, Mapping):
        problems.append(f"'state' must be a dict, got {_short(state)}")
        state = {}
    entries = _numbers_of(state, "'state'", problems)
    for key, entry in state.items():
        if not isinstance(entry, Mapping):
            problems.append(
                f"the entry of {key!r} in 'state' must be a dict, got {_short(entry)}"
            )
    refuse("The state dict", problems)
    keys, _ = parameters(x)
    for what, found in (("'param_groups'", keys), ("'state'", entries)):
        if twice := [key for key, n in Counter(found).items() if n > 1]:
            problems.append(f"{what} has the parameters {twice} more than once")
    refuse("The state dict", problems)


def keys_and_names(group: Mapping[str, Any]) -> tuple[list[Any], list[str] | None]:
    """Return the keys of the parameters in a saved group, and their names.

    Keys are numbers, and names exist if the optimizer was given `named_parameters`. In
    PyTorch's distributed state dicts the keys are the names. Names that are only
    numbers, as in a `torch.nn.ParameterList`, are returned as `None`.
    """
    keys = list(map(number_of, group["params"]))
    names = list(map(_text, group.get("param_names") or ()))
    if keys and all(isinstance(key, str) for key in keys):
        names = keys
    return keys, None if are_numbers(names) else names


def parameters(state_dict: Mapping[str, Any]) -> tuple[list[Any], dict[Any, str]]:
    """Return the keys of a state dict's parameters, in order, and the names by key."""
    keys: list[Any] = []
    names: dict[Any, str] = {}
    for group in state_dict["param_groups"]:
        own, known = keys_and_names(group)
        keys += own
        names.update(zip(own, known or (), strict=False))
    return keys, names


def are_numbers(names: Sequence[str]) -> bool:
    """Return whether names are numbers (of a list) or empty (of a single array)."""
    return all(name == "" or name.isdecimal() for name in names)


def read_entries(
    state_dict: Mapping[str, Any],
    label: Callable[[Any], str],
    problems: list[str],
) -> dict[Any, Entry]:
    """Return the entries in a state dict, by the keys of their parameters.

    Messages, which are added to `problems`, refer to a parameter by `label(key)`.
    """
    saved = {number_of(key): entry for key, entry in state_dict["state"].items()}
    keys = set(parameters(state_dict)[0])
    if surplus := [key for key in saved if key not in keys]:
        problems.append(f"the saved state has entries for {surplus}, in no group")
    entries = {}
    for key, entry in saved.items():
        if key not in keys:
            continue
        if missing := [name for name in KEYS if name not in entry]:
            problems.append(
                f"the saved state of {label(key)} lacks {missing}; it has {list(entry)}"
            )
            continue
        values: list[Any] = []
        for name, read in zip(KEYS, (whole_number, _moment, _moment), strict=True):
            try:
                values.append(read(entry[name]))
            except (TypeError, ValueError) as error:
                problems.append(f"the saved {name} of {label(key)} {error}")
        if len(values) == len(KEYS):
            entries[key] = Entry(*values)
    return entries


def write_entry(entry: Entry, array: Callable[[Any], Any]) -> dict[str, Any]:
    """Return an entry in the layout of state dicts, with arrays made by `array`."""
    values = np.float32(entry.step), entry.mu, entry.nu
    return dict(zip(KEYS, map(array, values), strict=True))


def number_of(key: Any) -> Any:
    """Return a parameter's key as a Python number, or as a string if it is a name."""
    # JSON makes numbers strings; mapping over a tree may make both arrays.
    key = _text(key)
    if isinstance(key, str):
        return int(key) if key.isdecimal() else key
    return whole_number(key)


def _moment(value: Any) -> np.ndarray:
    array = to_numpy(value)
    if not jnp.issubdtype(array.dtype, jnp.number):
        raise ValueError(f"must be floating or complex, got {array.dtype}")
    return array


def _check_group(group: Any, i: int, problems: list[str]) -> None:
    """Add to `problems` if the saved group `i` is not built like one."""
    if not isinstance(group, Mapping) or not all(isinstance(k, str) for k in group):
        problems.append(f"group {i} must be a dict of options, got {_short(group)}")
        return
    if "params" not in group:
        problems.append(f"group {i} lacks 'params'; it has {list(group)}")
        return
    keys, names = group["params"], group.get("param_names")
    if not isinstance(keys, list | tuple):
        problems.append(f"'params' of group {i} must be a list, got {_short(keys)}")
        return
    _numbers_of(keys, f"'params' of group {i}", problems)
    if names is not None:
        checked_names(names, len(keys), i, problems)


def checked_names(names: Any, size: int, i: int, problems: list[str]) -> list[str]:
    """Return "param_names" of group `i`, which has `size` parameters.

    If they are wrong, add the reason to `problems` and return none.
    """
    texts: list[Any] = [None]
    if isinstance(names, list | tuple):
        texts = list(map(_text, names))
    are_texts = all(isinstance(text, str) for text in texts)
    if are_texts and len(set(texts)) == len(texts) == size:
        return texts
    problems.append(
        f"'param_names' of group {i} must be a list of {size} names that differ, got "
        f"{_short(names)}"
    )
    return []


def _numbers_of(keys: Iterable[Any], what: str, problems: list[str]) -> list[Any]:
    """Return `number_of` each key in `what`; add to `problems`."""
    numbers = []
    for key in keys:
        try:
            numbers.append(number_of(key))
        except (TypeError, ValueError):
            problems.append(
                f"{what} must have numbers or names of parameters, got {_short(key)}"
            )
    return numbers


def _text(x: Any) -> Any:
    """Return a string that became an array as a string; anything else as it is."""
    is_text = isinstance(x, np.ndarray) and x.dtype.kind == "U" and x.size == 1
    return x.item() if is_text else x


# Values in messages, which may be large.
_short = reprlib.repr
