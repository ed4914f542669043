"""The parameters of all groups: their numbers, names and places."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from adamax_optax._dtypes import compute_dtype
from adamax_optax.compat import _gradients, _hyperparameters, _parameters
from adamax_optax.compat._plan import Spec, sharding_of


class Layout:
    """Access to the parameters of all groups, numbered from 0.

    Args:
      groups: The dicts of the groups, with all hyperparameters.
      found: Access to the parameters of each group.
      grouped: Whether gradients have one entry per group.

    Attributes:
      sizes: The number of parameters in each group.
      group_of, paths, shapes: For each parameter, the number of its group, its path,
        which begins with its group's if `grouped`, and its shape.
      owners, slots: The variables of NNX in which a step stores new arrays itself, and
        the attributes for them.
      in_trees: For each parameter, whether it has no such owner.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        found: Sequence[_parameters.Parameters],
        grouped: bool,
    ) -> None:
        self.groups = tuple(groups)
        self.found = tuple(found)
        self.grouped = grouped
        self.sizes = [len(own.paths) for own in found]
        self.group_of = [i for i, size in enumerate(self.sizes) for _ in range(size)]
        self.paths = [
            (f"[{i}]", *path) if grouped else path
            for i, own in enumerate(found)
            for path in own.paths
        ]
        self.shapes = [shape for own in found for shape in own.shapes]
        self.matcher = _gradients.Matcher(self.paths, self.owned)
        owners = [owner for own in found for owner in own.owners]
        self.in_trees = [owner is None for owner in owners]
        self.owners = [owner[0] for owner in owners if owner is not None]
        self.slots = [owner[1] for owner in owners if owner is not None]

    def read(self) -> list[Any]:
        """Return the arrays of all parameters."""
        return [
            array
            for own, group in zip(self.found, self.groups, strict=True)
            for array in own.read(_params(group))
        ]

    def specs(
        self, params: Sequence[Any], kinds: Sequence[tuple[Any, bool, bool]]
    ) -> tuple[Spec, ...]:
        """Return the specs of arrays; `kinds` has `_hyperparameters.kind` by group."""
        return tuple(
            Spec(array.shape, array.dtype, sharding_of(array), i, *kinds[i], in_tree)
            for array, i, in_tree in zip(
                params, self.group_of, self.in_trees, strict=True
            )
        )

    def write(self, arrays: Sequence[Any]) -> None:
        """Put the arrays of all parameters without an owner into the groups."""
        rest = iter(arrays)
        for own, group in zip(self.found, self.groups, strict=True):
            new = list(itertools.islice(rest, own.owners.count(None)))
            if new:
                group["params"] = own.write(group["params"], new)

    def place(self, arrays: Sequence[Any]) -> None:
        """Put other arrays in the place of those of all parameters."""
        self.write(list(itertools.compress(arrays, self.in_trees)))
        owned = (
            x for x, inside in zip(arrays, self.in_trees, strict=True) if not inside
        )
        for owner, slot, array in zip(self.owners, self.slots, owned, strict=True):
            object.__setattr__(owner, slot, array)

    def owned(self) -> list[Any]:
        """Return, for each parameter, the array or the variable of NNX."""
        return [
            x
            for own, group in zip(self.found, self.groups, strict=True)
            for x in own.owned(_params(group))
        ]

    def check(
        self, groups: Sequence[dict[str, Any]] | None = None, *, look: bool = False
    ) -> None:
        """Check the hyperparameters of the groups, or of others in their place."""
        for own, group in zip(self.found, groups or self.groups, strict=True):
            dtype = _precision(own.read(_params(group)))
            _hyperparameters.check(group, dtype, look=look)


def arrange(
    groups: Sequence[Any],
    defaults: Mapping[str, Any],
    old: Layout | None,
    grouped: bool,
) -> Layout:
    """Return the layout of groups, some of which may be in an old layout.

    The others are checked, and get the defaults of the hyperparameters that they lack.
    """
    known = (
        {} if old is None else dict(zip(map(id, old.groups), old.found, strict=True))
    )
    found, trees, new = [], [], []
    for group in groups:
        check_group(group)
        tree, own = group["params"], known.get(id(group))
        if own is None:
            tree, names = _parameters.listed(tree)
            own = _parameters.find(tree)
            new.append((group, {**defaults, **group, "params": tree, **names}))
            _hyperparameters.check(new[-1][1], _precision(own.read(tree)), look=True)
        found.append(own)
        trees.append(tree)
    _refuse_shared(found, trees)
    for group, options in new:
        group.update(options)
    return Layout(groups, found, grouped)


def _refuse_shared(found: Sequence[_parameters.Parameters], trees: Sequence[Any]):
    first: dict[int, int] = {}
    for i, (own, tree) in enumerate(zip(found, trees, strict=True)):
        for path, x in zip(own.paths, own.owned(tree), strict=True):
            if first.setdefault(id(x), i) != i:
                raise ValueError(
                    f"A parameter may be in one group only, but "
                    f"{_parameters.label(path)} of group {i} is already in group "
                    f"{first[id(x)]}."
                )


def are_groups(params: Any) -> bool:
    return (
        isinstance(params, list | tuple)
        and len(params) > 0
        and all(isinstance(entry, Mapping) and "params" in entry for entry in params)
    )


def check_group(group: Any) -> None:
    if not isinstance(group, Mapping) or "params" not in group:
        raise ValueError(
            f"A parameter group must be a dict with 'params', got {group!r}."
        )


def _params(group: Any) -> Any:
    if "params" not in group:
        check_group(group)
    return group["params"]


def _precision(arrays: Sequence[Any]) -> Any:
    """Return the dtype in which the hyperparameters of a group are used."""
    # The dtype that JAX gives an array: float32, unless float64 is enabled.
    dtypes = {jnp.finfo(compute_dtype(jnp.result_type(x))).dtype for x in arrays}
    return np.float64 if dtypes == {np.dtype(np.float64)} else np.float32
