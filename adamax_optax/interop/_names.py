"""Names of leaves, and which parameter of another library each of them is."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax

# What PyTorch, MindSpore and Keras call that for which Flax has these names.
_ALIASES = {
    "weight": ("kernel", "scale", "embedding"),
    "gamma": ("scale",),
    "beta": ("bias",),
    "embedding_table": ("embedding",),
    "embeddings": ("embedding",),
}

Order = Mapping[Any, str | None] | Sequence[str | None]


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


class Leaves(Protocol):
    """What has leaves with names.

    Attributes:
      names: Their names.
      ordered: Whether their order means something.
    """

    names: list[str]
    ordered: bool


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


def pair(
    keys: Sequence[Any],
    names: Mapping[Any, str],
    state: Leaves,
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


def refuse(what: str, problems: Sequence[str]) -> None:
    """Raise if there are problems, with all of them in one message.

    Raises:
      ValueError: If there are any.
    """
    if problems:
        listed = "".join(f"\n- {problem}" for problem in problems)
        raise ValueError(f"{what} does not fit:{listed}")


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


def _name(path):
    if path and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]  # inside a variable of NNX
    return jax.tree_util.keystr(path, simple=True, separator=".")
