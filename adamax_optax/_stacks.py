"""Which leaves of a tree are stacked, and what the tree looks like then."""

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamax_optax._arrays import place_of
from adamax_optax._checks import leaf_name
from adamax_optax._dtypes import leaf_dtype

# Leaves of up to `SMALL` elements are stacked, up to `LEAVES` of them in an array of up
# to `STACK` elements. Copying larger leaves costs more than passing fewer arrays saves,
# and a larger stack leaves the cache before the next loop reads it.
SMALL = 16_384
LEAVES = 32
STACK = 131_072


def stacks_of(keys: Iterable[tuple[Any, ...] | None]) -> list[list[int]]:
    """Return the numbers of the leaves in each stack; other leaves are stacks of one.

    Small leaves with equal keys are stacked. A key is a tuple that begins with the
    leaf's shape, or `None` to leave the leaf alone.
    """
    alike: dict[Any, list[int]] = {}
    for k, key in enumerate(keys):
        small = key is not None and math.prod(key[0]) <= SMALL
        alike.setdefault(key if small else k, []).append(k)
    divided = []
    for key, same in alike.items():
        size = math.prod(key[0]) if len(same) > 1 else 0
        most = min(LEAVES, STACK // max(1, size))
        divided += [same[i : i + most] for i in range(0, len(same), most)]
    return divided


class InStack(NamedTuple):
    """Placeholder in a tree for a leaf that is in a stack; holds nothing."""


class StackedLeaves(NamedTuple):
    """A tree with its small leaves stacked.

    Attributes:
      stacks: Arrays of shape (leaves, …), each of 2 to 32 leaves of one shape and
        dtype, in the order of the leaves.
      rest: The tree, with `InStack()` in place of each leaf that is in a stack.
    """

    stacks: tuple[Any, ...]
    rest: Any


def has_stacks(opt_state: Any) -> bool:
    def is_stacked(x):
        return isinstance(x, StackedLeaves)

    return any(map(is_stacked, jax.tree.leaves(opt_state, is_leaf=is_stacked)))


class StackLayout:
    """The place of each leaf of a tree, in a stack or alone.

    It follows from the structure of the tree and from what JAX's types say of its
    leaves, so that `init` and every `update` find the same one, in `jit` or not.

    Args:
      tree: The parameters, or gradients of the same dtypes.
    """

    def __init__(self, tree: Any) -> None:
        self._treedef: Any
        self._leaves, self._treedef = jax.tree_util.tree_flatten_with_path(tree)
        divided = stacks_of(_key(leaf) for _, leaf in self._leaves)
        # The numbers of the leaves in each stack.
        self.stacks = [numbers for numbers in divided if len(numbers) > 1]

    def check_places(self) -> None:
        """Raise `ValueError` if the leaves of a stack are known to be placed apart."""
        for numbers in self.stacks:
            path, first = self._leaves[numbers[0]]
            for k in numbers[1:]:
                other, leaf = self._leaves[k]
                if _are_apart(first, leaf):
                    raise ValueError(
                        f"The parameters at {leaf_name(path)} and {leaf_name(other)} "
                        "have one shape and would share an array, but differ in "
                        f"sharding: {first.sharding} and {leaf.sharding}. Shard them "
                        "alike, or step one without stacking, with optax.partition."
                    )

    def pack(self, tree: Any, join: Callable[[list[Any]], Any] = jnp.stack) -> Any:
        """Return a tree with its leaves stacked by `join`.

        The tree has the layout's structure; a leaf may be a subtree or `None`.
        """
        leaves = self._treedef.flatten_up_to(tree)
        stacks = tuple(join([leaves[k] for k in numbers]) for numbers in self.stacks)
        for k in itertools.chain(*self.stacks):
            leaves[k] = InStack()
        return StackedLeaves(stacks, self._treedef.unflatten(leaves))

    def unpack(self, packed: Any, row: Callable[[Any, int], Any] | None = None) -> Any:
        """Undo `pack`; `row(stack, i)` takes leaf i from a stack."""
        row = row or (lambda stack, i: jax.tree.map(lambda x: x[i], stack))
        leaves = self._treedef.flatten_up_to(packed.rest)
        for numbers, stack in zip(self.stacks, packed.stacks, strict=True):
            for i, k in enumerate(numbers):
                leaves[k] = row(stack, i)
        return self._treedef.unflatten(leaves)


def layout_of(packed: StackedLeaves, params: Any) -> tuple[StackLayout, Any]:
    """Return the layout of a packed tree, and those of `params` that it was made for.

    The tree has `optax.MaskedNode` where `optax.masked` or `optax.partition` left
    parameters out. Raise `ValueError` if it was made for others than `params`.
    """

    def is_place(x):
        return isinstance(x, InStack | optax.MaskedNode)

    def own(place, param):
        return place if isinstance(place, optax.MaskedNode) else param

    misfit = "The stacked state was made for other parameters than params"
    try:
        params = jax.tree.map(own, packed.rest, params, is_leaf=is_place)
    except ValueError as error:
        raise ValueError(f"{misfit}: {error}") from error
    layout = StackLayout(params)
    check_shapes(packed, jax.eval_shape(layout.pack, params), misfit)
    return layout, params


def check_shapes(packed: StackedLeaves, like: StackedLeaves, misfit: str) -> Any:
    """Return a packed tree, or raise `ValueError` unless it has the shapes of `like`.

    A leaf may be a subtree of arrays of its shape. The message begins with `misfit`.
    """
    treedef: Any
    leaves, treedef = jax.tree.flatten(like)
    try:
        parts = [jax.tree.leaves(part) for part in treedef.flatten_up_to(packed)]
    except ValueError as error:
        raise ValueError(f"{misfit}: {error}") from error
    found = [jnp.shape(part[0]) if part else None for part in parts]
    if found != (expected := [leaf.shape for leaf in leaves]):
        raise ValueError(
            f"{misfit}: it has arrays of the shapes {found}, they give {expected}."
        )
    return packed


def _key(leaf: Any) -> tuple[Any, ...] | None:
    dtype = leaf_dtype(leaf)
    if dtype is None:
        return None
    # With explicit mesh axes, arrays of one stack must be sharded alike.
    return jnp.shape(leaf), dtype, jax.typeof(leaf).sharding.spec


def _are_apart(a: Any, b: Any) -> bool:
    if isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer):
        return False
    place, other = place_of(a), place_of(b)
    return None not in (place, other) and not place.is_equivalent_to(other, a.ndim)
