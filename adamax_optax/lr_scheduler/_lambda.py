"""Curves given by a function of the epoch."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from adamax_optax._checks import check_callable
from adamax_optax.lr_scheduler._base import (
    HasParamGroups,
    LRScheduler,
    copied,
    extended,
    loaded,
    param_groups,
    per_group,
)

Lambda = Callable[[int], Any]


def has_state(fn: Any) -> bool:
    """Return whether a callable is saved: an object with attributes, as in PyTorch.

    A function is not: the code that makes the scheduler defines it again.
    """
    # Not `inspect.isroutine`, which is true of `functools.partial` from Python 3.14 on.
    code = inspect.isfunction(fn) or inspect.ismethod(fn) or inspect.isclass(fn)
    return hasattr(fn, "__dict__") and not code and not hasattr(fn, "__wrapped__")


def callable_state(fn: Any) -> dict[str, Any] | None:
    """Return the part of a callable that is saved."""
    return copied(vars(fn)) if has_state(fn) else None


def load_callable(fn: Any, state: Any) -> None:
    """Restore the saved attributes of a callable object."""
    if has_state(fn) and isinstance(state, Mapping):
        attributes = vars(fn)
        attributes.update(
            (key, loaded(key, value, attributes.get(key)))
            for key, value in state.items()
        )


class _PerGroupLambdaLR(LRScheduler):
    _lists = ("lr_lambdas",)

    def __init__(
        self,
        optimizer: HasParamGroups,
        lr_lambda: Lambda | list[Lambda],
        last_epoch: int = -1,
        verbose: bool | str = False,
    ) -> None:
        self.lr_lambdas = per_group("lr_lambda", lr_lambda, param_groups(optimizer))
        for fn in self.lr_lambdas:
            check_callable("lr_lambda", fn)
        super().__init__(optimizer, last_epoch, verbose)

    def state_dict(self) -> dict[str, Any]:
        lambdas = [callable_state(fn) for fn in self.lr_lambdas]
        return {**super().state_dict(), "lr_lambdas": lambdas}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        groups = len(self.optimizer.param_groups)
        states = self._states(state_dict, "lr_lambdas")
        if len(states) > groups:
            raise ValueError(
                f"state_dict['lr_lambdas'] must have at most {groups} entries, one "
                f"for each group in optimizer.param_groups; got {states!r}."
            )
        own = self.lr_lambdas
        fns = extended("lr_lambdas", own, max(len(states), len(own)))
        with self._all_or_nothing():
            for fn, state in zip(fns, states, strict=False):
                load_callable(fn, state)
            super().load_state_dict({**state_dict, "lr_lambdas": fns})

    def _parts(self) -> list[Any]:
        return [self, *filter(has_state, self.lr_lambdas)]


class LambdaLR(_PerGroupLambdaLR):
    """Multiply the initial learning rate by a function of the epoch.

    At epoch t::

        lr(t) = initial_lr * lr_lambda(t)

    Not chainable: it overwrites the changes of other schedulers.

    Args:
      optimizer, last_epoch, verbose: See `LRScheduler`.
      lr_lambda: Function from the epoch to a factor, or a list with one per group.

    Raises:
      TypeError: If `lr_lambda` is not callable.
      ValueError: If `lr_lambda` is a list without exactly one entry per group.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> optimizer = ao.Adamax(jnp.zeros(3), lr=0.8)
      >>> scheduler = ao.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
      >>> for _ in range(3):
      ...     print(*scheduler.get_last_lr())
      ...     scheduler.step()
      0.8
      0.4
      0.2

    Differences: MindSpore calls the function with a float32 tensor; PyTorch and this
    class use a Python number.
    """

    def get_lr(self) -> list[float]:
        return [
            base_lr * fn(self.last_epoch)
            for fn, base_lr in zip(self.lr_lambdas, self.base_lrs, strict=True)
        ]


class MultiplicativeLR(_PerGroupLambdaLR):
    """Multiply the learning rate every epoch by a function of the epoch.

    At epoch t::

        lr(t) = lr(t - 1) * lr_lambda(t)

    Args:
      optimizer, last_epoch, verbose: See `LRScheduler`.
      lr_lambda: Function from the epoch to a factor, or a list with one per group.

    Raises:
      TypeError: If `lr_lambda` is not callable.
      ValueError: If `lr_lambda` is a list without exactly one entry per group.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> optimizer = ao.Adamax(jnp.zeros(3), lr=0.8)
      >>> scheduler = ao.lr_scheduler.MultiplicativeLR(optimizer, lambda epoch: 0.5)
      >>> for _ in range(3):
      ...     print(*scheduler.get_last_lr())
      ...     scheduler.step()
      0.8
      0.4
      0.2

    Differences: When a `SequentialLR` starts it, or at ``step(0)``, PyTorch and this
    class multiply the current learning rate by λ(0); MindSpore does not.
    """

    def get_lr(self) -> list[float]:
        if self._is_initial:
            return self._last_lr
        return [
            lr * fn(self.last_epoch)
            for fn, lr in zip(self.lr_lambdas, self._last_lr, strict=True)
        ]
