"""Between a state of this package and another library's: read, pair, convert, write."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from adamax_optax._arrays import to_numpy, whole_number
from adamax_optax._checks import refuse
from adamax_optax._torch_layout import Entry
from adamax_optax.interop._states import (
    LAST_COUNT,
    State,
    are_numbers,
    open_state,
)

Convert = Callable[[str, np.ndarray], Any]
Order = Mapping[Any, str | None] | Sequence[str | None]

# What PyTorch, MindSpore and Keras call that for which Flax has these names.
_ALIASES = {
    "weight": ("kernel", "scale", "embedding"),
    "gamma": ("scale",),
    "beta": ("bias",),
    "embedding_table": ("embedding",),
    "embeddings": ("embedding",),
}


class Saved(NamedTuple):
    """What another library has saved.

    Attributes:
      what: What errors call it.
      keys: Its parameters, in order.
      names: Their names, as far as they have any.
      entries: What it remembers of each.
      problems: What is wrong with it.
    """

    what: str
    keys: Sequence[Any]
    names: Mapping[Any, str]
    entries: Mapping[Any, Entry]
    problems: Sequence[str]


def put(
    saved: Saved, opt_state: Any, order: Order | None, convert: Convert | None
) -> Any:
    """Return a state of this package with the moments of another library.

    Args:
      saved: Those.
      opt_state: A functional state, or a state dict of the class.
      order: The user's.
      convert: The user's.

    Raises:
      ValueError: With everything that does not fit.
    """
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
        for key, leaf in pairs.items()
        if leaf is not None and key in saved.entries
    }
    return state.write(entries, saved.what, problems)


def take(
    state: State,
    keys: Sequence[Any],
    names: Mapping[Any, str],
    order: Order | None,
    convert: Convert | None,
) -> dict[Any, Entry | None]:
    """Return what a state of this package holds, by the keys of another library.

    Args:
      state: The state.
      keys: The parameters there, in order.
      names: Their names, as far as they have any.
      order: The user's.
      convert: The user's.

    Returns:
      The entries, with arrays of NumPy; `None` for what took no step, of which a state
      dict has no arrays.

    Raises:
      ValueError: With everything that does not fit.
    """
    problems: list[str] = []
    pairs = pair(keys, names, state, order, problems)
    taken = set(pairs.values())
    problems += [
        f"no parameter is the leaf {leaf!r}"
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
    """Return the step count of all entries, as an int32 holds it, and the entries.

    Args:
      entries: What `take` returned.
      library: Whose state knows but one count.

    Raises:
      ValueError: If the counts differ, or if there are no moments.
    """
    there = {key: entry for key, entry in entries.items() if entry is not None}
    steps = {entry.step for entry in there.values()}
    if len(steps) != 1 or len(there) < len(entries):
        counts = {key: getattr(entry, "step", 0) for key, entry in entries.items()}
        raise ValueError(
            f"{library} has one step count for all parameters, and the moments of all; "
            f"the state has the counts {counts}."
        )
    return min(steps.pop(), LAST_COUNT), there


def _converted(entry, leaf, convert):
    def converted(moment):
        moment = np.asarray(moment)
        # A view that is flipped is not what PyTorch takes.
        return np.array(moment if convert is None else convert(leaf, moment), order="C")

    return entry._replace(mu=converted(entry.mu), nu=converted(entry.nu))


class Words(NamedTuple):
    """What an optimizer calls its arrays.

    Attributes:
      step: The step count.
      mu: m; ``{}`` stands for the parameter's name.
      nu: u, in the same way.
    """

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
    """Return the entries in a collection of arrays, by the parameters' names.

    Args:
      values: The collection; there may be other things in it.
      words: What is what.
      problems: What is missing or is no step count is added here.
    """
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
    """Find the leaf of each parameter of another library.

    Args:
      keys: The parameters there, in order.
      names: Their names there, as far as they have any.
      state: What has the leaves here.
      order: The user's; see `adamax_optax.interop`.
      problems: What does not fit is added here.

    Returns:
      The leaf's name for each key; `None` for those that have no leaf on purpose or
      are among the problems. Keys that `order` leaves out are left out.
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
    """Return what messages call a parameter of another library."""
    if names.get(key, key) == key:
        return f"parameter {key!r}"
    return f"parameter {key!r} ({names[key]!r})"


def _wanted(keys, names, state, order, problems):
    """Return what name the leaf of each key should have."""
    if isinstance(order, Mapping):
        known = {*keys, *names.values()}
        if unknown := [key for key in order if key not in known]:
            problems.append(f"order has {unknown}, which no parameter is called")
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
    """Return the leaf that a name stands for, its own or in Flax's words."""
    if name in leaves:
        return name
    last = name.rpartition(".")[2]
    stem = name.removesuffix(last)
    found = [stem + alias for alias in _ALIASES.get(last, ()) if stem + alias in leaves]
    return found[0] if len(found) == 1 else None
