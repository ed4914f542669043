"""Checks of arguments at trace time; the values of tracers are never checked."""

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamax_optax._arrays import is_array
from adamax_optax._dtypes import leaf_dtype

# A larger Python number would be infinite in float32, and 0 times it NaN.
_LARGEST = float(np.finfo(np.float32).max)


def check_range(
    name: str,
    value: Any,
    *,
    below: float = math.inf,
    schedule: bool = False,
    fix: str = "",
) -> None:
    """Raise `ValueError` unless `value` is a real number in [0, below).

    With `schedule`, it may be a schedule. The values of JAX arrays and schedules are
    not checked: reading them would be an error under `jit`, and would wait for the
    device outside it. The message ends with `fix`.
    """
    given_array = is_array(value)
    if given_array and value.shape != ():
        raise ValueError(
            f"{name} must be one number, got an array of shape {value.shape}, "
            f"{value!r}."
        )
    real = isinstance(value, int | float) or (
        given_array
        and any(jnp.issubdtype(value.dtype, kind) for kind in (np.integer, np.floating))
    )
    if not real and not (schedule and not given_array and callable(value)):
        raise ValueError(
            f"{name} must be a real number, or a scalar array"
            f"{', or a schedule' if schedule else ''}, got {value!r} of type "
            f"{type(value).__name__}."
        )
    if real and not isinstance(value, jax.Array):
        number = value if isinstance(value, int) else float(value)
        # Written so that a NaN fails.
        if not (0 <= number < below and number <= _LARGEST):
            bound = "finite" if below == math.inf else f"below {below:g}"
            raise ValueError(
                f"{name} must be at least 0 and {bound}, got {value!r}.{fix}"
            )


def check_decay_rate(name: str, value: Any) -> None:
    """Raise `ValueError` unless `value` is in [0, 1), in a dtype of at least 32 bits.

    In bfloat16, 0.999 is 1 and nothing would ever decay. JAX arrays are checked only
    for their dtype.
    """
    check_range(name, value, below=1.0)
    dtype = getattr(value, "dtype", np.dtype(float))
    if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32:
        raise ValueError(
            f"{name} has dtype {dtype}, too coarse for a decay rate: 0.999 would be "
            f"{jnp.asarray(0.999, dtype)} in it. Pass a Python number or float32. For "
            "half-precision parameters optax.inject_hyperparams makes such arrays: "
            "give it hyperparam_dtype=jnp.float32."
        )


def check_hyperparameters(
    *, b1: Any, b2: Any, eps: Any, eps_outside: Any = 0.0, weight_decay: Any = 0.0
) -> None:
    """Raise `ValueError` if a hyperparameter is out of range."""
    check_decay_rate("b1", b1)
    check_decay_rate("b2", b2)
    check_range("eps", eps)
    check_range("eps_outside", eps_outside)
    check_range("weight_decay", weight_decay, schedule=True)


def check_learning_rate(value: Any) -> None:
    """Raise `ValueError` if a learning rate is negative, infinite or NaN.

    A negative rate is not for ascending: it would turn the weight decay into growth.
    """
    check_range(
        "learning_rate", value, schedule=True, fix=" To ascend, pass maximize=True."
    )


def check_flag(name: str, value: Any) -> None:
    """Raise `ValueError` unless `value` is a boolean or a boolean array of shape ()."""
    if not isinstance(value, bool) and not (
        is_array(value) and value.shape == () and value.dtype == bool
    ):
        raise ValueError(f"{name} must be True or False, got {value!r}.")


def check_transformation(name: str, tx: Any) -> None:
    """Raise `ValueError` unless `tx` is an Optax transformation."""
    if not (hasattr(tx, "init") and hasattr(tx, "update")):
        raise ValueError(
            f"{name} must be an Optax transformation, such as ao.adamax(1e-3), got "
            f"{tx!r}."
        )


def check_seed(seed: Any) -> None:
    """Raise `ValueError` unless `seed` is a whole number in [0, 2**32), or an array."""
    is_whole = isinstance(seed, int) or (
        is_array(seed) and seed.shape == () and jnp.issubdtype(seed.dtype, np.integer)
    )
    if not is_whole or not (isinstance(seed, jax.Array) or 0 <= seed < 2**32):
        raise ValueError(f"seed must be a whole number in [0, 2**32), got {seed!r}.")


def check_inexact(path: Any, leaf: Any, what: str) -> None:
    """Raise `ValueError` unless a leaf is a floating or complex array."""
    dtype = leaf_dtype(leaf)
    if dtype is None:
        raise ValueError(
            f"The {what} at {leaf_name(path)} must be an array, got {leaf!r}."
        )
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise ValueError(
            f"The {what} at {leaf_name(path)} has dtype {dtype}; it must be "
            "floating or complex. Leave such leaves out with optax.masked or "
            "optax.partition."
        )


def check_gradients(gradients: Any, moments: Any) -> None:
    """Raise `ValueError` unless the gradients fit the moments that `init` made.

    `None`, for a leaf or a subtree, is no gradient.
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
        name = f"The gradient at {leaf_name(path)}"
        check_fit(name, gradient, moment, "parameter that init was given")


def check_params(gradients: Any, params: Any) -> None:
    """Raise `ValueError` unless `params` has the structure and shapes of `gradients`.

    Otherwise a wrong shape would broadcast, and the wrong decay would go unnoticed.
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
        name = f"The gradient at {leaf_name(path)}"
        check_fit(name, gradient, param, "parameter passed to update")


def checked_mask(mask: Any) -> Callable[[Any], Any]:
    """Return the mask as a function from the parameters to a checked tree.

    `mask` is a tree of booleans, or a function from the parameters to one. The returned
    function raises `ValueError` if a leaf is not a boolean, or if the tree is not a
    prefix of the parameters.
    """

    def mask_fn(params):
        # A tree may itself be callable, such as an Equinox module: look at its leaves.
        leaves = jax.tree.leaves(mask)
        tree = mask(params) if leaves and all(map(callable, leaves)) else mask
        for leaf in jax.tree.leaves(tree):
            check_flag("Each leaf of mask", leaf)
        try:
            jax.tree.map(lambda *_: None, tree, params)
        except ValueError as error:
            raise ValueError(
                "mask must have the structure of the parameters or be a prefix of it: "
                f"{error}"
            ) from error
        return tree

    return mask_fn


def leaf_name(path: Any) -> str:
    """Return a leaf's name for messages, such as ``['encoder']['bias']``."""
    return jax.tree_util.keystr(path) or "the root"


def check_fit(name: str, leaf: Any, other: Any, than: str) -> None:
    """Raise `ValueError` unless two arrays agree in shape and in being complex or not.

    `name` and `than` are what the message calls them.
    """
    if jnp.shape(leaf) != jnp.shape(other):
        raise ValueError(
            f"{name} has shape {jnp.shape(leaf)}, the {than} has {jnp.shape(other)}."
        )
    if jnp.iscomplexobj(leaf) != jnp.iscomplexobj(other):
        raise ValueError(
            f"{name} has dtype {jnp.result_type(leaf)}, the {than} "
            f"{jnp.result_type(other)}: both must be real or both complex."
        )


def pairs(gradients: Any, others: Any, misfit: str) -> list[tuple[Any, Any, Any]]:
    """Return (path, gradient, other) for every leaf.

    Args:
      gradients: A tree; `None` is a leaf.
      others: A tree of the same structure, with any subtree in place of a `None`.
      misfit: The message of the `ValueError` if the structures differ.
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


def refuse(what: str, problems: Sequence[str]) -> None:
    """Raise one `ValueError` that lists all `problems`, if there are any."""
    if problems:
        listed = "".join(f"\n- {problem}" for problem in problems)
        raise ValueError(f"{what} does not fit:{listed}")


_NUMBERS = (numbers.Real, np.generic, np.ndarray, jax.Array)


def check_int(
    name: str, value: Any, low: int, wrong_type: type[Exception] = TypeError
) -> None:
    """Raise unless `value` is an integer of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise wrong_type(
            f"{name} must be an int, got {value!r} of type {type(value).__name__}."
        )
    if value < low:
        raise ValueError(f"{name} must be an int >= {low}, got {value!r}.")


def check_real(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    without_low: bool = False,
    without_high: bool = False,
    wrong_type: type[Exception] = TypeError,
) -> None:
    """Raise unless `value` is a finite number, or array of them, within the bounds.

    Tracers are not checked.
    """
    if isinstance(value, jax.core.Tracer):
        return
    if isinstance(value, bool) or not isinstance(value, _NUMBERS):
        raise wrong_type(
            f"{name} must be a number, got {value!r} of type {type(value).__name__}."
        )
    x = np.asarray(value, dtype=np.float64)
    above = x > low if without_low else x >= low
    below = x < high if without_high else x <= high
    if not np.all(above & below & np.isfinite(x)):
        opening = "(" if without_low or low == -math.inf else "["
        closing = ")" if without_high or high == math.inf else "]"
        raise ValueError(
            f"{name} must be a number in {opening}{low:g}, {high:g}{closing}, "
            f"got {value!r}."
        )


def as_float(name: str, value: Any) -> float:
    """Return a number, or an array of one element, as a Python float."""
    if isinstance(value, _NUMBERS):
        x = np.asarray(value, dtype=np.float64)
        if x.size == 1:
            return float(x.item())
    raise TypeError(f"{name} must be one number, got {value!r}.")


def check_callable(name: str, value: Any) -> None:
    """Raise `TypeError` unless `value` is callable."""
    if not callable(value):
        raise TypeError(f"{name} must be a function of one number, got {value!r}.")
