"""Checks of the trees that a transformation is given: at trace time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from adamax_optax._checks import check_flag
from adamax_optax._dtypes import leaf_dtype


def check_inexact(path: Any, leaf: Any, what: str) -> None:
    """Raise unless a leaf is an array of a floating or complex dtype.

    Raises:
      ValueError: Naming the leaf, its dtype and the fix.
    """
    dtype = leaf_dtype(leaf)
    if dtype is None:
        raise ValueError(
            f"The {what} at {leaf_name(path)} must be an array, got {leaf!r}."
        )
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise ValueError(
            f"The {what} at {leaf_name(path)} has dtype {dtype}; Adamax needs a "
            "floating or complex one. Leave such leaves out with optax.masked or "
            "optax.partition."
        )


def check_gradients(gradients: Any, moments: Any) -> None:
    """Raise unless the gradients fit the moments that `init` made.

    Args:
      gradients: A tree of arrays; `None` stands for "no gradient" anywhere.
      moments: The tree of first moments.

    Raises:
      ValueError: If the structures differ, or if a leaf's shape or kind of dtype
        does not fit; the message names the leaf.
    """
    for path, gradient, moment in pairs(
        gradients,
        moments,
        "The gradients do not have the structure of the parameters that init was given",
    ):
        if gradient is None:
            continue
        if not hasattr(moment, "dtype"):
            raise ValueError(
                f"There is a gradient at {leaf_name(path)} where the parameters that "
                f"init was given hold {jax.tree.structure(moment)}."
            )
        check_inexact(path, gradient, "gradient")
        check_fit(path, gradient, moment, "gradient", "parameter that init was given")


def check_params(gradients: Any, params: Any) -> None:
    """Raise unless the parameters are of the structure and shapes of the gradients.

    Were they broadcast, an update of another parameter's decay would look healthy.

    Raises:
      ValueError: If they do not fit; the message names the leaf.
    """
    for path, gradient, param in pairs(
        gradients,
        params,
        "The parameters passed to update do not have the structure of the gradients",
    ):
        if gradient is None:
            continue
        check_inexact(path, gradient, "gradient")
        check_inexact(path, param, "parameter")
        check_fit(path, gradient, param, "gradient", "parameter passed to update")


def checked_mask(mask: Any) -> Callable[[Any], Any]:
    """Return the mask as a function from parameters to a tree that has been checked.

    Args:
      mask: A tree of booleans, or a function from the parameters to one.

    Returns:
      The function. It raises a `ValueError` if the tree holds something else than
      booleans, or is neither of the parameters' structure nor a prefix of it.
    """

    def mask_fn(params):
        # A tree may be callable itself, as modules of Equinox are.
        leaves = jax.tree.leaves(mask)
        tree = mask(params) if leaves and all(map(callable, leaves)) else mask
        for leaf in jax.tree.leaves(tree):
            check_flag("Each leaf of mask", leaf)
        try:
            jax.tree.map(lambda *_: None, tree, params)
        except ValueError as error:
            raise ValueError(
                f"mask must have the structure of the parameters or begin it: {error}"
            ) from error
        return tree

    return mask_fn


def leaf_name(path: Any) -> str:
    """Return what a leaf is called in messages, such as ``['encoder']['bias']``."""
    return jax.tree_util.keystr(path) or "the root"


def check_fit(path: Any, leaf: Any, other: Any, what: str, than: str) -> None:
    """Raise unless two arrays are of one shape, and both real or both complex.

    Raises:
      ValueError: Naming the leaf, and what the two arrays are.
    """
    if jnp.shape(leaf) != jnp.shape(other):
        raise ValueError(
            f"The {what} at {leaf_name(path)} has shape {jnp.shape(leaf)}, the {than} "
            f"has {jnp.shape(other)}."
        )
    if jnp.iscomplexobj(leaf) != jnp.iscomplexobj(other):
        raise ValueError(
            f"The {what} at {leaf_name(path)} has dtype {jnp.result_type(leaf)}, the "
            f"{than} {jnp.result_type(other)}: both must be real or both complex."
        )


def pairs(gradients: Any, others: Any, misfit: str) -> list[tuple[Any, Any, Any]]:
    """Return each gradient, after its path and before what another tree has there.

    Args:
      gradients: A tree; `None` is a leaf in it.
      others: A tree of the same structure, with anything in the place of a `None`.
      misfit: What to say if it is of another.

    Raises:
      ValueError: If it is.
    """
    treedef: Any
    leaves, treedef = jax.tree_util.tree_flatten_with_path(
        gradients, is_leaf=lambda x: x is None
    )
    try:
        others = treedef.flatten_up_to(others)
    except ValueError as error:
        raise ValueError(f"{misfit}: {error}") from error
    return [(*leaf, other) for leaf, other in zip(leaves, others, strict=True)]
