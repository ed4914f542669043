"""Checks of hyperparameters and gradients: at trace time, never on traced values."""

import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def check_range(
    name: str, value: Any, *, below: float = math.inf, fix: str = ""
) -> None:
    """Raise unless `value` is known only at run time or lies in [0, below).

    Arrays of JAX (traced or not) and schedules pass unchecked: to look at their
    values would be an error under `jit` and a wait for the device outside it.

    Args:
      name: The argument's name, for the message.
      value: A number, an array or a schedule.
      below: The excluded upper end of the range.
      fix: What to do instead, appended to the message.

    Raises:
      ValueError: If `value` is none of these, NaN, or outside the range.
    """
    if isinstance(value, numbers.Real | np.ndarray):
        # Not `or` of the opposites, which a NaN would pass.
        inside = (0 <= value) & (value < below)  # type: ignore[operator]
        if not (inside if isinstance(inside, bool) else inside.all()):
            bound = "finite" if below == math.inf else f"below {below:g}"
            raise ValueError(
                f"{name} must be at least 0 and {bound}, got {value!r}.{fix}"
            )
    elif not (hasattr(value, "dtype") or callable(value)):
        raise ValueError(
            f"{name} must be a number or an array (or a schedule, where the "
            f"documentation allows one), got {value!r} of type {type(value).__name__}."
        )


def check_decay_rate(name: str, value: Any) -> None:
    """Raise unless a decay rate may lie in [0, 1), and has the bits to lie near 1.

    In bfloat16, 0.999 is 1 and nothing would ever decay. The values of JAX's arrays are
    not looked at, but their dtypes are.

    Raises:
      ValueError: Naming the argument, the value or the dtype, and the fix.
    """
    check_range(name, value, below=1.0)
    dtype = getattr(value, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        return
    if jnp.finfo(dtype).bits < 32:
        raise ValueError(
            f"{name} has dtype {dtype}, too coarse for a decay rate: 0.999 would be "
            f"{jnp.asarray(0.999, dtype)} in it. Pass a Python number or float32. For "
            "half-precision parameters optax.inject_hyperparams makes such arrays: "
            "give it hyperparam_dtype=jnp.float32."
        )


def check_hyperparameters(
    *, b1: Any, b2: Any, eps: Any, eps_outside: Any = 0.0, weight_decay: Any = 0.0
) -> None:
    """Raise unless b1 and b2 are decay rates and the others finite and not negative.

    Raises:
      ValueError: Naming the argument, the value and the range.
    """
    check_decay_rate("b1", b1)
    check_decay_rate("b2", b2)
    check_range("eps", eps)
    check_range("eps_outside", eps_outside)
    check_range("weight_decay", weight_decay)


def check_learning_rate(value: Any) -> None:
    """Raise if a learning rate is a number below 0, infinite or NaN.

    Raises:
      ValueError: Naming the value; ascent is `maximize=True`, since a negative rate
        would also turn the weight decay into growth.
    """
    check_range("learning_rate", value, fix=" To ascend, pass maximize=True.")


def check_inexact(path: Any, leaf: Any, what: str) -> None:
    """Raise unless a leaf has a floating or complex dtype.

    Raises:
      ValueError: Naming the leaf, its dtype and the fix.
    """
    dtype = jnp.result_type(leaf)
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise ValueError(
            f"The {what} at {_leaf_name(path)} has dtype {dtype}; Adamax needs a "
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
    treedef: Any
    leaves, treedef = jax.tree_util.tree_flatten_with_path(
        gradients, is_leaf=lambda x: x is None
    )
    try:
        expected = treedef.flatten_up_to(moments)
    except ValueError as error:
        raise ValueError(
            "The gradients do not have the structure of the parameters that init was "
            f"given: {error}"
        ) from error
    for (path, gradient), moment in zip(leaves, expected, strict=True):
        if gradient is None:
            continue
        if not hasattr(moment, "dtype"):
            raise ValueError(
                f"There is a gradient at {_leaf_name(path)} where the parameters that "
                f"init was given hold {jax.tree.structure(moment)}."
            )
        check_inexact(path, gradient, "gradient")
        if jnp.shape(gradient) != moment.shape:
            raise ValueError(
                f"The gradient at {_leaf_name(path)} has shape {jnp.shape(gradient)}, "
                f"the parameter that init was given has {moment.shape}."
            )
        if jnp.iscomplexobj(gradient) != jnp.iscomplexobj(moment):
            raise ValueError(
                f"The gradient at {_leaf_name(path)} has dtype "
                f"{jnp.result_type(gradient)}, the moment {moment.dtype}: both must be "
                "real or both complex."
            )


def _leaf_name(path: Any) -> str:
    return jax.tree_util.keystr(path) or "the root"
