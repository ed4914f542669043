"""Read and write the states of this package as named leaves.

There are two: functional states, from ``tx.init``, and state dicts of the class.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamax_optax import _nnx
from adamax_optax._arrays import cast_like, copied, place_of, put_like
from adamax_optax._bias_correction import LARGEST_COUNT, ScaleByBiasCorrectionState
from adamax_optax._checks import refuse
from adamax_optax._lazy_rows import with_row_scales
from adamax_optax._stacks import has_stacks
from adamax_optax._torch_layout import (
    STEPS_TAKEN,
    Entry,
    are_numbers,
    is_state_dict,
    keys_and_names,
    read_entries,
    require_state_dict,
    write_entry,
)
from adamax_optax.moments import (
    ScaleByInfinityNormState,
    cast_state,
    is_moments,
    require_moments,
    state_dtype_of,
)


def leaf_names(tree: Any) -> list[str]:
    """Return the names that `order` and `convert` use for the leaves of a tree.

    A leaf's name is its path, joined by dots, without the ``value`` of NNX variables.

    Args:
      tree: The parameters: a tree of arrays, or ``nnx.state(module, nnx.Param)``.

    Returns:
      The name of each leaf, in the order of `jax.tree.leaves`.

    Raises:
      ValueError: If two leaves have the same name.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> layer = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
      >>> ao.interop.leaf_names({"fc": [layer, layer]})
      ['fc.0.bias', 'fc.0.kernel', 'fc.1.bias', 'fc.1.kernel']
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_pair)
    names = [_name(path) for path, _ in leaves]
    check_distinct(names)
    return names


def check_distinct(names: Sequence[str]) -> None:
    """Raise `ValueError` unless all names differ."""
    if twice := sorted(k for k, n in Counter(names).items() if n > 1):
        raise ValueError(f"Several leaves have the same name: {twice}.")


def is_pair(x: Any) -> bool:
    """Return whether `x` is a pair by `optax.contrib.split_real_and_imaginary`."""
    return getattr(x, "_fields", None) == ("real", "imaginary")


class _Part(NamedTuple):
    """The moments of one transformation; a state may hold several."""

    at: int  # index of the moments among the nodes
    count_at: int | None  # of the step count, if there is a bias correction
    wide: ScaleByInfinityNormState  # shapes, dtypes and shardings, decoded
    names: list[str]  # of the leaves


class FunctionalState:
    """The state of transformations of this package, in any chains and wrappers.

    Attributes:
      names: The names of all leaves.
      ordered: Whether `names` is in the order of the parameters.
    """

    def __init__(self, opt_state: optax.OptState) -> None:
        require_moments(opt_state)
        if has_stacks(opt_state):
            raise ValueError(
                "opt_state has its leaves in the stacks of ao.stack_small_leaves. Pass "
                "ao.unstack_state(opt_state, params), and convert the result back with "
                "ao.stack_state."
            )
        self._nodes, self._treedef = jax.tree.flatten(opt_state, is_leaf=_is_node)
        templates = {at: _wide(self._nodes[at]) for at in self._all(is_moments)}
        self._parts = [
            _Part(at, self._count_of(at), wide, leaf_names(wide.mu))
            for at, wide in templates.items()
        ]
        self.names = [name for part in self._parts for name in part.names]
        check_distinct(self.names)
        if numbered := are_numbers(self.names):
            self.names.sort(key=lambda name: (len(name), name))
        self.ordered = numbered or len(self._parts) == 1

    def read(self) -> dict[str, Entry]:
        """Return the entry of each leaf, with copied arrays."""
        entries = {}
        for part in self._parts:
            if part.count_at is None:
                raise ValueError(
                    "The state has moments without a step count: there must be a "
                    "scale_by_bias_correction in the chain."
                )
            wide: Any = cast_state(self._nodes[part.at], None)
            step = int(jax.tree.leaves(self._nodes[part.count_at])[0])
            moments = [jax.tree.leaves(moment, is_leaf=is_pair) for moment in wide]
            for name, mu, nu in zip(part.names, *moments, strict=True):
                entries[name] = Entry(step, copied(mu), copied(nu))
        return entries

    def write(
        self, found: Mapping[str, Entry | None], what: str, problems: list[str]
    ) -> optax.OptState:
        """Return the state with other moments and counts.

        `found` has the new entries by leaf, `None` for a parameter that took no step. A
        part without any entries has taken no steps. If there are any `problems`, those
        found so far or new ones, raise a `ValueError` about `what` that lists them.
        """
        entries = {name: entry for name, entry in found.items() if entry is not None}
        nodes = list(self._nodes)
        for part in self._parts:
            given = [entries[name] for name in part.names if name in entries]
            self._check(part, entries, given, problems)
            moments = _filled(part, entries, problems)
            if problems:
                continue
            nodes[part.at] = in_form_of(nodes[part.at], moments)
            if part.count_at is not None:
                step = given[0].step if given else 0
                nodes[part.count_at] = _counted(nodes[part.count_at], step)
        refuse(what, problems)
        latest = max((entry.step for entry in entries.values()), default=0)
        for at in self._all(_is_schedule):
            nodes[at] = _counted(nodes[at], latest)
        return jax.tree.unflatten(self._treedef, nodes)

    def _check(self, part, entries, given, problems):
        """Add to `problems` if a part's entries are incomplete or differ in step."""
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

    def _all(self, is_one):
        return [at for at, node in enumerate(self._nodes) if is_one(node)]

    def _count_of(self, at: int) -> int | None:
        """Return the index of the step count of the moments at index `at`."""
        for later in range(at + 1, len(self._nodes)):
            if is_moments(self._nodes[later]):
                break
            if isinstance(self._nodes[later], ScaleByBiasCorrectionState):
                return later
        return None


def in_form_of(node: Any, moments: Any) -> Any:
    """Return decoded moments in the `state_dtype` and containers of those in `node`."""
    if not isinstance(node, ScaleByInfinityNormState):
        dtype = state_dtype_of(node)
        if dtype is None:
            return node
        cast: Any = cast_state(moments, dtype)
        moments = cast._replace(key=node.key)
        if isinstance(node.scale, tuple):
            moments = with_row_scales(moments)
    return jax.tree.unflatten(jax.tree.structure(node), jax.tree.leaves(moments))


def _filled(part, entries, problems):
    """Return a part's moments from the entries, 0 where there is none."""
    trees = []
    for field, moment in zip(("mu", "nu"), part.wide, strict=True):
        leaves, treedef = jax.tree.flatten(moment, is_leaf=is_pair)
        for i, name in enumerate(part.names):
            if name not in entries:
                leaves[i] = jax.tree.map(
                    lambda x: put_like(x, np.zeros(x.shape)), leaves[i]
                )
                continue
            try:
                leaves[i] = cast_like(leaves[i], getattr(entries[name], field))
            except ValueError as error:
                problems.append(f"{field} of the leaf {name!r} {error}")
        trees.append(jax.tree.unflatten(treedef, leaves))
    return ScaleByInfinityNormState(*trees)


def _wide(node):
    """Return the shapes, dtypes and shardings of moments, decoded."""
    if isinstance(node, ScaleByInfinityNormState):
        return node
    decoded = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=place_of(x)),
        node.codes[0],
    )
    return ScaleByInfinityNormState(mu=decoded, nu=decoded)


def _counted(node, step):
    """Return a state that has only a count, with another count."""
    step = np.asarray(min(step, LARGEST_COUNT))
    return jax.tree.map(lambda count: put_like(count, step), node)


def _is_node(x):
    return is_moments(x) or _is_count(x)


def _is_count(x):
    return getattr(x, "_fields", None) == ("count",)


def _is_schedule(x):
    # Not by class: Optax has several, not all of them public.
    return _is_count(x) and not isinstance(x, ScaleByBiasCorrectionState)


class StateDict:
    """The state dict of `adamax_optax.Adamax`.

    Leaves have the names in ``"param_names"``, or else their numbers. If two groups
    share a name, all begin with the number of the group, as in `leaf_names` of a list.

    Attributes:
      names: The names of the leaves, in the order of the parameters.
    """

    ordered = True  # as in FunctionalState

    def __init__(self, state_dict: Mapping[str, Any]) -> None:
        require_state_dict(state_dict)
        self._state_dict = state_dict
        self._keys: list[Any] = []
        self.names: list[str] = []
        long: list[str] = []
        for i, group in enumerate(state_dict["param_groups"]):
            keys, names = keys_and_names(group)
            self._keys += keys
            names = names or list(map(str, keys))
            self.names += names
            long += [f"{i}.{name}" for name in names]
        if len(set(self.names)) < len(long):
            self.names = long

    def read(self) -> dict[str, Entry]:
        """Return the entries of the leaves that have one."""
        problems: list[str] = []
        entries = read_entries(self._state_dict, str, problems)
        refuse("The state", problems)
        names = zip(self._keys, self.names, strict=True)
        return {name: entries[key] for key, name in names if key in entries}

    def write(
        self, found: Mapping[str, Entry | None], what: str, problems: list[str]
    ) -> dict[str, Any]:
        """Return the state dict with other moments and counts; see `FunctionalState`.

        A parameter may have no entry, as it may have had no gradient, but the other
        library must know it. `adamax_optax.Adamax.load_state_dict` checks shapes later:
        before its first step the class saves no arrays to compare with.
        """
        if missing := [name for name in self.names if name not in found]:
            problems.append(
                f"there is nothing for the leaves {missing}: if they are frozen, keep "
                "them out of the optimizer"
            )
        refuse(what, problems)
        state = {
            key: write_entry(entry, jnp.array)
            for key, name in zip(self._keys, self.names, strict=True)
            if (entry := found[name]) is not None
        }
        steps = max((entry.step for entry in found.values() if entry), default=0)
        groups = [
            {**group, STEPS_TAKEN: steps} if STEPS_TAKEN in group else group
            for group in self._state_dict["param_groups"]
        ]
        return {"state": state, "param_groups": groups}


def _name(path):
    if path and path[-1] == _nnx.VALUE:
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator=".")


State = FunctionalState | StateDict


def open_state(opt_state: Any) -> State:
    """Wrap a functional state or a state dict of the class."""
    if is_state_dict(opt_state):
        return StateDict(opt_state)
    return FunctionalState(opt_state)
