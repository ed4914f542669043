"""Functional states, taken apart into one entry for each leaf and put together."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamax_optax._bias_correction import ScaleByBiasCorrectionState
from adamax_optax._infinity_norm import ScaleByInfinityNormState
from adamax_optax.interop._arrays import copied, like, place_of, placed
from adamax_optax.interop._cast_state import cast_state, is_norm, require_moments
from adamax_optax.interop._entry import DEFAULT_BETAS, LAST_COUNT, Betas, Entry
from adamax_optax.interop._names import (
    are_numbers,
    check_distinct,
    is_pair,
    leaf_names,
    refuse,
)


class _Part(NamedTuple):
    """The moments of one transformation, of which a state may hold several.

    Attributes:
      at: The number of its moments among the nodes.
      count_at: The number of its step count; `None` where there is no bias correction.
      wide: What its moments are like in at least float32.
      names: Those of its leaves.
    """

    at: int
    count_at: int | None
    wide: ScaleByInfinityNormState
    names: list[str]


class FunctionalState:
    """The state of transformations of this package, in chains and wrappers.

    Attributes:
      names: The names of the leaves of all parts.
      ordered: Whether their order is that of the parameters.
    """

    def __init__(self, opt_state: optax.OptState) -> None:
        """Take a state apart.

        Raises:
          ValueError: If it holds no moments of this package, or a leaf twice.
        """
        require_moments(opt_state)
        self._nodes, self._treedef = jax.tree.flatten(opt_state, is_leaf=_is_node)
        templates = {at: _wide(self._nodes[at]) for at in self._all(is_norm)}
        self._parts = [
            _Part(at, self._count_of(at), norm, leaf_names(norm.mu))
            for at, norm in templates.items()
        ]
        self.names = [name for part in self._parts for name in part.names]
        check_distinct(self.names)
        if numbered := are_numbers(self.names):
            self.names.sort(key=lambda name: (len(name), name))
        self.ordered = numbered or len(self._parts) == 1

    def read(self, betas: Mapping[str, Betas]) -> dict[str, Entry]:
        """Return the entry of each leaf, with arrays of its own.

        Args:
          betas: The decay rates of each leaf, by name.

        Raises:
          ValueError: If there is no step count, or if moments in one code have
            different decay rates.
        """
        entries = {}
        for part in self._parts:
            if part.count_at is None:
                raise ValueError(
                    "The state has moments without a step count: there must be a "
                    "scale_by_bias_correction in the chain."
                )
            problems: list[str] = []
            self._check_betas(part, {betas[name] for name in part.names}, problems)
            refuse("The state", problems)
            b1, b2 = betas[part.names[0]] if part.names else DEFAULT_BETAS
            wide: Any = cast_state(self._nodes[part.at], None, b1=b1, b2=b2)
            step = int(jax.tree.leaves(self._nodes[part.count_at])[0])
            moments = [jax.tree.leaves(moment, is_leaf=is_pair) for moment in wide]
            for name, mu, nu in zip(part.names, *moments, strict=True):
                entries[name] = Entry(step, copied(mu), copied(nu), betas[name])
        return entries

    def write(
        self, entries: Mapping[str, Entry], what: str, problems: list[str]
    ) -> optax.OptState:
        """Return the state with other moments and counts.

        Args:
          entries: One for each leaf. A part whose leaves have none took no steps yet.
          what: The subject of the error.
          problems: What did not fit so far.

        Raises:
          ValueError: If there are problems, with those that are found here.
        """
        nodes = list(self._nodes)
        for part in self._parts:
            given = [entries[name] for name in part.names if name in entries]
            self._check(part, entries, given, problems)
            norm = _filled(part, entries, problems)
            if problems:
                continue
            first = given[0] if given else Entry(0, None, None)
            nodes[part.at] = in_form_of(nodes[part.at], norm, first.betas)
            if part.count_at is not None:
                nodes[part.count_at] = _counted(nodes[part.count_at], first.step)
        refuse(what, problems)
        latest = max((entry.step for entry in entries.values()), default=0)
        for at in self._all(_is_schedule):
            nodes[at] = _counted(nodes[at], latest)
        return jax.tree.unflatten(self._treedef, nodes)

    def _check(self, part, entries, given, problems):
        """Add what keeps the entries of a part from being one state."""
        missing = [name for name in part.names if name not in entries]
        if given and missing:
            problems.append(
                f"there is nothing for the leaves {missing}: if they are frozen, keep "
                "them out of the state with optax.masked"
            )
        if len(steps := {entry.step for entry in given}) > 1:
            problems.append(
                f"the leaves {part.names} share one step count, but theirs are "
                f"{sorted(steps)}: the class Adamax has one for each"
            )
        self._check_betas(part, {entry.betas for entry in given}, problems)

    def _check_betas(self, part, betas, problems):
        reduced = not isinstance(self._nodes[part.at], ScaleByInfinityNormState)
        if reduced and len(betas) > 1:
            problems.append(
                f"the leaves {part.names} are in one code, which needs one pair of "
                f"betas, but theirs are {sorted(betas)}"
            )

    def _all(self, is_one):
        return [at for at, node in enumerate(self._nodes) if is_one(node)]

    def _count_of(self, at):
        """Return where the step count of the moments at a place is, or `None`."""
        for later in range(at + 1, len(self._nodes)):
            if is_norm(self._nodes[later]):
                break
            if isinstance(self._nodes[later], ScaleByBiasCorrectionState):
                return later
        return None


def in_form_of(node: Any, norm: Any, betas: tuple[Any, Any]) -> Any:
    """Return moments in the form of others, and in the same kinds of containers.

    Args:
      node: The others.
      norm: The moments, a `ScaleByInfinityNormState`.
      betas: The decay rates.
    """
    if not isinstance(node, ScaleByInfinityNormState):
        codes = jax.tree.leaves(node.codes)
        if not codes:
            return node
        b1, b2 = betas
        cast: Any = cast_state(norm, codes[0].dtype, b1=b1, b2=b2)
        norm = cast._replace(key=node.key)
    return jax.tree.unflatten(jax.tree.structure(node), jax.tree.leaves(norm))


def _filled(part, entries, problems):
    """Return a part's moments, filled from the entries, and with 0 without them."""
    trees = []
    for field, moment in zip(("mu", "nu"), part.wide, strict=True):
        leaves, treedef = jax.tree.flatten(moment, is_leaf=is_pair)
        for i, name in enumerate(part.names):
            if name not in entries:
                leaves[i] = jax.tree.map(
                    lambda x: placed(x, np.zeros(x.shape)), leaves[i]
                )
                continue
            try:
                leaves[i] = like(leaves[i], getattr(entries[name], field))
            except ValueError as error:
                problems.append(f"{field} of the leaf {name!r} {error}")
        trees.append(jax.tree.unflatten(treedef, leaves))
    return ScaleByInfinityNormState(*trees)


def _wide(node):
    """Return the shapes, dtypes and shardings of moments, decoded if they are codes."""
    if isinstance(node, ScaleByInfinityNormState):
        return node
    decoded = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=place_of(x)),
        node.codes[0],
    )
    return ScaleByInfinityNormState(mu=decoded, nu=decoded)


def _counted(node, step):
    step = np.asarray(min(step, LAST_COUNT))
    return jax.tree.map(lambda count: placed(count, step), node)


def _is_node(x):
    return is_norm(x) or _is_count(x)


def _is_count(x):
    return getattr(x, "_fields", None) == ("count",)


def _is_schedule(x):
    # Optax has several classes for it, not all of them public.
    return _is_count(x) and not isinstance(x, ScaleByBiasCorrectionState)
