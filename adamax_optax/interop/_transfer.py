"""Move entries between a state of this package and another library's."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from adamax_optax._arrays import to_numpy, whole_number
from adamax_optax._bias_correction import LARGEST_COUNT
from adamax_optax._checks import refuse
from adamax_optax._torch_layout import Entry, are_numbers
from adamax_optax.interop._states import State, open_state

Convert = Callable[[str, np.ndarray], Any]
Order = Mapping[Any, str | None] | Sequence[str | None]

# Other libraries' names, and the Flax names that each may stand for.
_ALIASES = {
    "weight": ("kernel", "scale", "embedding"),
    "gamma": ("scale",),
    "beta": ("bias",),
    "embedding_table": ("embedding",),
    "embeddings": ("embedding",),
}


class Saved(NamedTuple):
    """A saved state of another library."""

    what: str  # the subject of error messages
    keys: Sequence[Any]  # of the parameters, in order
    names: Mapping[Any, str]  # of parameters that have one, by key
    entries: Mapping[Any, Entry]  # by key
    problems: Sequence[str]


def put(
    saved: Saved, opt_state: Any, order: Order | None, convert: Convert | None
) -> Any:
    """Return `opt_state` with the moments and counts of a saved state."""
    state = open_state(opt_state)
    problems = list(saved.problems)
    pairs = pair(saved.keys, saved.names, state, order, problems)
    problems += [
        f"{shown(key, saved.names)} has moments, but no leaf"
        for key in saved.entries
        if key not in pairs
    ]
    entries = {
        leaf: _converted(saved.entries[key], leaf, convert)
        if key in saved.entries
        else None
        for key, leaf in pairs.items()
        if leaf is not None
    }
    return state.write(entries, saved.what, problems)


def take(
    state: State,
    keys: Sequence[Any],
    names: Mapping[Any, str],
    order: Order | None,
    convert: Convert | None,
) -> dict[Any, Entry | None]:
    """Return the entries of a state by the other library's keys, as NumPy arrays.

    They are `None` for leaves of a state dict that took no step: these have no arrays.
    """
    problems: list[str] = []
    pairs = pair(keys, names, state, order, problems)
    taken = set(pairs.values())
    problems += [
        f"no parameter matches the leaf {leaf!r}"
        for leaf in state.names
        if leaf not in taken
    ]
    refuse("The state", problems)
    entries = state.read()
    return {
        key: _converted(entries[leaf], leaf, convert) if leaf in entries else None
        for key, leaf in pairs.items()
        if leaf is not None
    }


def in_step(
    entries: Mapping[Any, Entry | None], library: str
) -> tuple[int, dict[Any, Entry]]:
    """Return the common step count, capped to int32, and the entries that exist."""
    present = {key: entry for key, entry in entries.items() if entry is not None}
    steps = {entry.step for entry in present.values()}
    if len(steps) != 1 or len(present) < len(entries):
        counts = {key: getattr(entry, "step", 0) for key, entry in entries.items()}
        raise ValueError(
            f"{library} has one step count for all parameters, and moments for each; "
            f"the state has the counts {counts}."
        )
    return min(steps.pop(), LARGEST_COUNT), present


def _converted(entry, leaf, convert):
    def converted(moment):
        moment = np.asarray(moment)
        # PyTorch refuses views with negative strides, such as flipped ones.
        return np.array(moment if convert is None else convert(leaf, moment), order="C")

    return entry._replace(mu=converted(entry.mu), nu=converted(entry.nu))


class Words(NamedTuple):
    """An optimizer's names for the step count, m and u; ``{}`` is the parameter's."""

    step: str
    mu: str
    nu: str


def names_in(names: Iterable[str], words: Words) -> list[str]:
    """Return the names of the parameters that have moments, in order."""
    found = []
    for word in (words.mu, words.nu):
        prefix, suffix = word.split("{}")
        found += [
            name.removeprefix(prefix).removesuffix(suffix)
            for name in names
            if name.startswith(prefix) and name.endswith(suffix)
        ]
    return list(dict.fromkeys(found))


def read_named(
    values: Mapping[str, Any], words: Words, problems: list[str]
) -> dict[str, Entry]:
    """Return the entries among named values, by parameter; add to `problems`."""
    names = names_in(values, words)
    arrays = {name: [word.format(name) for word in words[1:]] for name in names}
    wanted = [words.step, *(array for pair in arrays.values() for array in pair)]
    problems += [f"there is no {array!r}" for array in wanted if array not in values]
    if not names:
        problems.append(f"there are no arrays {words.mu!r} and {words.nu!r}")
    step = 0
    try:
        step = whole_number(values.get(words.step, step))
    except ValueError as error:
        problems.append(f"{words.step!r} {error}")
    return {
        name: Entry(step, to_numpy(values[mu]), to_numpy(values[nu]))
        for name, (mu, nu) in arrays.items()
        if mu in values and nu in values
    }


def pair(
    keys: Sequence[Any],
    names: Mapping[Any, str],
    state: State,
    order: Order | None,
    problems: list[str],
) -> dict[Any, str | None]:
    """Return the name of the leaf for each key; add misfits to `problems`.

    It is `None` for a key that has no leaf, on purpose or because it does not fit. Keys
    that are not in `order` are left out.
    """
    leaves, taken = set(state.names), set()
    found: dict[Any, str | None] = {}
    for key, name in _wanted(keys, names, state, order, problems).items():
        found[key] = None
        if name is None:
            continue
        leaf = _resolve(name, leaves)
        if leaf is None:
            problems.append(f"{shown(key, names)}: there is no leaf {name!r}")
        elif leaf in taken:
            problems.append(f"{shown(key, names)}: the leaf {leaf!r} is taken already")
        else:
            found[key] = leaf
            taken.add(leaf)
    return found


def shown(key: Any, names: Mapping[Any, str]) -> str:
    """Return how messages refer to a parameter of another library."""
    if names.get(key, key) == key:
        return f"parameter {key!r}"
    return f"parameter {key!r} ({names[key]!r})"


def _wanted(keys, names, state, order, problems):
    """Return the name that the leaf of each key should have, possibly an alias."""
    if isinstance(order, Mapping):
        known = {*keys, *names.values()}
        if unknown := [key for key in order if key not in known]:
            problems.append(f"order has unknown parameters {unknown}")
        return {
            key: order[key] if key in order else order[names[key]]
            for key in keys
            if key in order or names.get(key) in order
        }
    if order is None and names and not are_numbers(state.names):
        return {key: names.get(key, str(key)) for key in keys}
    if order is None and not state.ordered:
        problems.append(
            "the leaves are in several states, as optax.partition makes them, and have "
            f"no order: pass order, with names from {state.names}"
        )
        return {}
    by_number = state.names if order is None else order
    if len(by_number) != len(keys):
        what = "leaves" if order is None else "entries in order"
        problems.append(f"{len(keys)} parameters for {len(by_number)} {what}")
    return dict(zip(keys, by_number, strict=False))


def _resolve(name, leaves):
    """Return the leaf that a name or alias refers to, or `None`."""
    if name in leaves:
        return name
    last = name.rpartition(".")[2]
    stem = name.removesuffix(last)
    found = [stem + alias for alias in _ALIASES.get(last, ()) if stem + alias in leaves]
    return found[0] if len(found) == 1 else None
