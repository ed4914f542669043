"""Checks of hyperparameters: at trace time, never on traced values."""

import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
    """Raise unless `value` is known only at run time or lies in [0, below).

    Arrays of JAX (traced or not) and schedules pass with their values unchecked: to
    look at these would be an error under `jit` and a wait for the device outside it.

    Args:
      name: The argument's name, for the message.
      value: A number, an array of shape () or a schedule.
      below: The excluded upper end of the range.
      schedule: Whether `value` may be a schedule.
      fix: What to do instead, appended to the message.

    Raises:
      ValueError: If `value` is none of these, NaN, or outside the range.
    """
    is_array = isinstance(value, jax.Array | np.ndarray | np.generic)
    if is_array and value.shape != ():
        raise ValueError(
            f"{name} must be one number, got an array of shape {value.shape}, {value!r}"
        )
    real = isinstance(value, int | float) or (
        is_array
        and any(jnp.issubdtype(value.dtype, kind) for kind in (np.integer, np.floating))
    )
    if not real and not (schedule and not is_array and callable(value)):
        raise ValueError(
            f"{name} must be a real number, or an array of one"
            f"{', or a schedule' if schedule else ''}, got {value!r} of type "
            f"{type(value).__name__}."
        )
    if real and not isinstance(value, jax.Array):
        number = value if isinstance(value, int) else float(value)
        # Not `or` of the opposites, which a NaN would pass.
        if not (0 <= number < below and number <= _LARGEST):
            bound = "finite" if below == math.inf else f"below {below:g}"
            raise ValueError(
                f"{name} must be at least 0 and {bound}, got {value!r}.{fix}"
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
    check_range("weight_decay", weight_decay, schedule=True)


def check_learning_rate(value: Any) -> None:
    """Raise if a learning rate is a number below 0, infinite or NaN.

    Raises:
      ValueError: Naming the value; ascent is `maximize=True`, since a negative rate
        would also turn the weight decay into growth.
    """
    check_range(
        "learning_rate", value, schedule=True, fix=" To ascend, pass maximize=True."
    )


def check_flag(name: str, value: Any) -> None:
    """Raise unless `value` is a boolean, or an array of one.

    Raises:
      ValueError: Naming the argument and the value.
    """
    is_array = isinstance(value, jax.Array | np.ndarray | np.bool_)
    if not isinstance(value, bool) and not (
        is_array and value.shape == () and value.dtype == bool
    ):
        raise ValueError(f"{name} must be True or False, got {value!r}.")


_NUMBERS = (numbers.Real, np.generic, np.ndarray, jax.Array)


def check_int(
    name: str, value: Any, low: int, wrong_type: type[Exception] = TypeError
) -> None:
    """Raise unless `value` is an integer of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise wrong_type(
            f"{name} must be an int, got {value!r} of type {type(value).__name__}"
        )
    if value < low:
        raise ValueError(f"{name} must be an int >= {low}, got {value!r}")


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
            f"{name} must be a number, got {value!r} of type {type(value).__name__}"
        )
    x = np.asarray(value, dtype=np.float64)
    above = x > low if without_low else x >= low
    below = x < high if without_high else x <= high
    if not np.all(above & below & np.isfinite(x)):
        opening = "(" if without_low or low == -math.inf else "["
        closing = ")" if without_high or high == math.inf else "]"
        raise ValueError(
            f"{name} must be a number in {opening}{low:g}, {high:g}{closing}, "
            f"got {value!r}"
        )


def as_float(name: str, value: Any) -> float:
    """Return a number, or an array of one element, as a Python float."""
    if isinstance(value, _NUMBERS):
        x = np.asarray(value, dtype=np.float64)
        if x.size == 1:
            return float(x.item())
    raise TypeError(f"{name} must be one number, got {value!r}")


def check_callable(name: str, value: Any) -> None:
    """Raise unless `value` is callable."""
    if not callable(value):
        raise TypeError(f"{name} must be a function of the epoch, got {value!r}")
