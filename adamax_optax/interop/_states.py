"""The two states of this package, read and written as leaves with names.

A functional state, which ``tx.init`` makes, and the state dict of the class `Adamax`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamax_optax._arrays import cast_like, copied, place_of, put_like
from adamax_optax._bias_correction import ScaleByBiasCorrectionState
from adamax_optax._checks import refuse
from adamax_optax._torch_layout import (
    Entry,
    is_state_dict,
    parameters,
    read_entries,
    write_entry,
)
from adamax_optax.moments import (
    ScaleByInfinityNormState,
    cast_state,
    is_moments,
    require_moments,
    state_dtype_of,
)

LAST_COUNT = 2**31 - 1  # where the count of a functional state stays, an int32


def leaf_names(tree: Any) -> list[str]:
    """Return the names that `order` and `convert` have for the leaves of a tree.

    A leaf's name is the path to it, joined by dots. A variable of NNX has the name of
    its place.

    Args:
      tree: The parameters: a tree of arrays, or ``nnx.state(module, nnx.Param)``.

    Returns:
      One name for each leaf, in the order of `jax.tree.leaves`.

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


def are_numbers(names: Sequence[str]) -> bool:
    """Whether names say nothing: those of a list, or of a tree that is one array."""
    return all(name == "" or name.isdecimal() for name in names)


def check_distinct(names: Sequence[str]) -> None:
    """Raise unless all names differ.

    Raises:
      ValueError: Naming those that do not.
    """
    if twice := sorted(k for k, n in Counter(names).items() if n > 1):
        raise ValueError(f"Several leaves have the same name: {twice}.")


def is_pair(x: Any) -> bool:
    """Whether something is what `optax.contrib.split_real_and_imaginary` makes."""
    return getattr(x, "_fields", None) == ("real", "imaginary")


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
        templates = {at: _wide(self._nodes[at]) for at in self._all(is_moments)}
        self._parts = [
            _Part(at, self._count_of(at), norm, leaf_names(norm.mu))
            for at, norm in templates.items()
        ]
        self.names = [name for part in self._parts for name in part.names]
        check_distinct(self.names)
        if numbered := are_numbers(self.names):
            self.names.sort(key=lambda name: (len(name), name))
        self.ordered = numbered or len(self._parts) == 1

    def read(self) -> dict[str, Entry]:
        """Return the entry of each leaf, with arrays of its own.

        Raises:
          ValueError: If there is no step count.
        """
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

    def _all(self, is_one):
        return [at for at, node in enumerate(self._nodes) if is_one(node)]

    def _count_of(self, at):
        """Return where the step count of the moments at a place is, or `None`."""
        for later in range(at + 1, len(self._nodes)):
            if is_moments(self._nodes[later]):
                break
            if isinstance(self._nodes[later], ScaleByBiasCorrectionState):
                return later
        return None


def in_form_of(node: Any, moments: Any) -> Any:
    """Return moments in the `state_dtype` and the containers of others.

    Args:
      node: The others.
      moments: A `ScaleByInfinityNormState` with the leaves of `node`.
    """
    if not isinstance(node, ScaleByInfinityNormState):
        dtype = state_dtype_of(node)
        if dtype is None:
            return node
        cast: Any = cast_state(moments, dtype)
        moments = cast._replace(key=node.key)
    return jax.tree.unflatten(jax.tree.structure(node), jax.tree.leaves(moments))


def _filled(part, entries, problems):
    """Return a part's moments, filled from the entries, and with 0 without them."""
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
    return jax.tree.map(lambda count: put_like(count, step), node)


def _is_node(x):
    return is_moments(x) or _is_count(x)


def _is_count(x):
    return getattr(x, "_fields", None) == ("count",)


def _is_schedule(x):
    # Optax has several classes for it, not all of them public.
    return _is_count(x) and not isinstance(x, ScaleByBiasCorrectionState)


class StateDict:
    """The state dict of `adamax_optax.Adamax`.

    Its leaves have the names under ``"param_names"``, as those of
    `torch.optim.Adamax` may, or else their numbers.

    Attributes:
      names: The names of the leaves.
      ordered: Whether their order means something; it does.
    """

    ordered = True

    def __init__(self, state_dict: Mapping[str, Any]) -> None:
        """Take a state dict.

        Raises:
          ValueError: If two leaves have the same name.
        """
        self._state_dict = state_dict
        self._keys, names = parameters(state_dict)
        self.names = [names.get(key, str(key)) for key in self._keys]
        check_distinct(self.names)

    def read(self) -> dict[str, Entry]:
        """Return the entries of the leaves that have one.

        Raises:
          ValueError: If something is missing or is no step count.
        """
        problems: list[str] = []
        entries = read_entries(self._state_dict, str, problems)
        refuse("The state", problems)
        names = zip(self._keys, self.names, strict=True)
        return {name: entries[key] for key, name in names if key in entries}

    def write(
        self, entries: Mapping[str, Entry], what: str, problems: list[str]
    ) -> dict[str, Any]:
        """Return the state dict with other moments and counts, and the same options.

        Shapes are `adamax_optax.Adamax.load_state_dict`'s to check: before its first
        step the class saves no arrays to compare with.

        Args:
          entries: Those of the leaves that took steps.
          what: The subject of the error.
          problems: What did not fit so far.

        Raises:
          ValueError: If there are problems.
        """
        refuse(what, problems)
        state = {
            key: write_entry(entries[name], jnp.array)
            for key, name in zip(self._keys, self.names, strict=True)
            if name in entries
        }
        return {"state": state, "param_groups": self._state_dict["param_groups"]}


def _name(path):
    if path and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]  # inside a variable of NNX
    return jax.tree_util.keystr(path, simple=True, separator=".")


State = FunctionalState | StateDict


def open_state(opt_state: Any) -> State:
    """Return a functional state, or a state dict of the class, as named leaves."""
    if is_state_dict(opt_state):
        return StateDict(opt_state)
    return FunctionalState(opt_state)
