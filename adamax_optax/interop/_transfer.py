"""The way that is common to all libraries: pair, convert, put or take."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from adamax_optax.interop._entry import LAST_COUNT, Betas, Entry
from adamax_optax.interop._functional import FunctionalState
from adamax_optax.interop._names import Order, pair, refuse, shown
from adamax_optax.interop._numbered import StateDict, is_state_dict

Convert = Callable[[str, np.ndarray], Any]
State = FunctionalState | StateDict


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
    betas: Mapping[Any, Betas],
    order: Order | None,
    convert: Convert | None,
) -> dict[Any, Entry | None]:
    """Return what a state of this package holds, by the keys of another library.

    Args:
      state: The state.
      keys: The parameters there, in order.
      names: Their names, as far as they have any.
      betas: Their decay rates.
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
    rates = {leaf: betas[key] for key, leaf in pairs.items() if leaf is not None}
    problems += [
        f"no parameter is the leaf {leaf!r}"
        for leaf in state.names
        if leaf not in rates
    ]
    refuse("The state", problems)
    entries = state.read(rates)
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


def open_state(opt_state: Any) -> State:
    """Return the state in a functional state, or in a state dict of the class."""
    if is_state_dict(opt_state):
        return StateDict(opt_state)
    return FunctionalState(opt_state)


def _converted(entry, leaf, convert):
    def converted(moment):
        moment = np.asarray(moment)
        # A view that is flipped is not what PyTorch takes.
        return np.array(moment if convert is None else convert(leaf, moment), order="C")

    return entry._replace(mu=converted(entry.mu), nu=converted(entry.nu))
