"""The layout of state dicts, which PyTorch and the class `Adamax` share.

``{"state": {0: {"step": …, "exp_avg": …, "exp_inf": …}, …}, "param_groups": [{…,
"params": [0, …]}, …]}``
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from adamax_optax._arrays import to_numpy, whole_number

KEYS = ("step", "exp_avg", "exp_inf")


class Entry(NamedTuple):
    """The state of one parameter, in any library.

    Attributes:
      step: The number of steps taken.
      mu: The paper's m.
      nu: The paper's u.
    """

    step: int
    mu: Any
    nu: Any


def is_state_dict(x: Any) -> bool:
    """Return whether `x` has the keys of a state dict."""
    return isinstance(x, Mapping) and {"state", "param_groups"} <= set(x)


def require_state_dict(x: Any) -> None:
    """Raise `ValueError` unless `x` has the keys of a state dict."""
    if not is_state_dict(x):
        raise ValueError(
            "A state dict must have the keys 'state' and 'param_groups', got "
            f"{list(x) if isinstance(x, Mapping) else x!r}."
        )


def parameters(state_dict: Mapping[str, Any]) -> tuple[list[Any], dict[Any, str]]:
    """Return the keys of a state dict's parameters, in order, and their names by key.

    Keys are numbers, and names exist if the optimizer was given `named_parameters`. In
    PyTorch's distributed state dicts the keys are the names.
    """
    keys: list[Any] = []
    names: dict[Any, str] = {}
    for group in state_dict["param_groups"]:
        own = list(map(number_of, group["params"]))
        keys += own
        names.update(zip(own, group.get("param_names", ()), strict=False))
    names.update({key: key for key in keys if isinstance(key, str)})
    return keys, names


def read_entries(
    state_dict: Mapping[str, Any],
    label: Callable[[Any], str],
    problems: list[str],
) -> dict[Any, Entry]:
    """Return the entries in a state dict, by the keys of their parameters.

    Args:
      state_dict: The state dict.
      label: Returns how messages refer to a parameter.
      problems: Problems are added here.
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
        try:
            step = whole_number(entry["step"])
        except ValueError as error:
            problems.append(f"the saved step of {label(key)} {error}")
            continue
        mu, nu = (to_numpy(entry[name]) for name in KEYS[1:])
        entries[key] = Entry(step, mu, nu)
    return entries


def write_entry(entry: Entry, array: Callable[[Any], Any]) -> dict[str, Any]:
    """Return an entry in the layout of state dicts, with arrays made by `array`."""
    values = np.float32(entry.step), entry.mu, entry.nu
    return dict(zip(KEYS, map(array, values), strict=True))


def number_of(key: Any) -> Any:
    """Return a parameter's key as a Python number, or as the name that it may be."""
    # JSON makes numbers strings; mapping over a tree may make them arrays.
    if isinstance(key, str):
        return int(key) if key.isdecimal() else key
    return int(key)
