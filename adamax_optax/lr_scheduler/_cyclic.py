"""Cyclical learning rates, and the momentum that cycles against them."""

from collections.abc import Callable, Mapping
from typing import Any

from adamax_optax._checks import as_float
from adamax_optax.lr_scheduler import _curves
from adamax_optax.lr_scheduler._base import (
    HasParamGroups,
    LRScheduler,
    initial_lr,
    numbers_per_group,
    param_groups,
)
from adamax_optax.lr_scheduler._lambda import callable_state, has_state, load_callable


class CyclesMomentum(LRScheduler):
    """Set each group's beta1 together with its learning rate, as PyTorch does."""

    cycle_momentum: bool

    def _momentums(self) -> Any:
        """Return the beta1 of each group at this step; each class defines it."""

    def _start_momentums(
        self, base_momentum: Any, max_momentum: Any, last_epoch: Any
    ) -> tuple[list[float], list[float]]:
        """Return the bounds of each group, and write them to new groups."""
        groups = self.optimizer.param_groups
        lows = numbers_per_group("base_momentum", base_momentum, groups, 1.0)
        highs = numbers_per_group("max_momentum", max_momentum, groups, 1.0)
        if self.cycle_momentum and last_epoch == -1:
            for group, low, high in zip(groups, lows, highs, strict=True):
                group.update(base_momentum=low, max_momentum=high)
        return lows, highs

    def _next_lrs(self, epoch: Any) -> list[Any]:
        lrs = super()._next_lrs(epoch)
        if self.cycle_momentum:
            groups = self.optimizer.param_groups
            for group, beta1 in zip(groups, self._momentums(), strict=True):
                if "betas" not in group:
                    raise ValueError(
                        "cycle_momentum sets beta1, but a group in optimizer."
                        "param_groups has no 'betas': pass cycle_momentum=False."
                    )
                group["betas"] = (float(beta1), *group["betas"][1:])
        return lrs

    def _written(self) -> dict[str, list[float]]:
        written = super()._written()
        if self.cycle_momentum:
            written["_group_beta1s"] = [
                as_float("betas[0]", group["betas"][0])
                for group in self.optimizer.param_groups
            ]
        return written

    def _mend(self, written: dict[str, list[float]]) -> None:
        super()._mend(written)
        beta1s = written["_group_beta1s"]
        if self.cycle_momentum and not beta1s:  # PyTorch's states do not have them
            beta1s = self._momentums()
        for group, made, beta1 in zip(
            self.optimizer.param_groups, self._made, beta1s, strict=False
        ):
            if group["betas"] is made["betas"]:
                group["betas"] = (beta1, *group["betas"][1:])


class CyclicLR(CyclesMomentum):
    """Move the learning rate up and down between `base_lr` and `max_lr`.

    At step t::

        lr(t) = base_lr + (max_lr - base_lr) * h * s

    The height h rises from 0 to 1 in `step_size_up` steps, falls to 0 in
    `step_size_down` steps, and repeats. The scale s is 1 (``"triangular"``),
    2^(1 - cycle) (``"triangular2"``), gamma^t (``"exp_range"``) or given by `scale_fn`.
    Cycles are numbered from 1. Step it after every batch. Not chainable: it
    overwrites the changes of other schedulers.

    Args:
      optimizer: See `LRScheduler`; its learning rates are set to `base_lr`.
      base_lr: Lower bound, a number >= 0, or a list with one per group.
      max_lr: Upper bound, a number >= 0, or a list with one per group.
      step_size_up: Steps of the rise, a number > 0, default 2000.
      step_size_down: Steps of the fall, a number >= 0, default `step_size_up`.
      mode: ``"triangular"`` (default), ``"triangular2"`` or ``"exp_range"``; ignored if
        `scale_fn` is given.
      gamma: Base of ``"exp_range"``, a number >= 0, default 1.
      scale_fn: A function for s, or ``None`` (default).
      scale_mode: Argument of `scale_fn`: the number of the cycle for ``"cycle"``
        (default), the number of the step for anything else.
      last_epoch, verbose: See `LRScheduler`; an epoch is a step.
      cycle_momentum: Whether to move beta1 against the learning rate, from
        `max_momentum` at the lower bound to `base_momentum` at the upper.
      base_momentum: Lower bound of beta1, a number in [0, 1), default 0.8, or a list
        with one per group.
      max_momentum: Upper bound, a number in [0, 1), default 0.9, or a list.

    Raises:
      TypeError: If an argument has the wrong type.
      ValueError: If an argument is out of range, a list does not have one entry per
        group, or `mode` is unknown and `scale_fn` not given.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> optimizer = ao.Adamax(jnp.zeros(3), lr=0.1)
      >>> scheduler = ao.lr_scheduler.CyclicLR(optimizer, 0.25, 0.75, 2)
      >>> for _ in range(4):
      ...     print(*scheduler.get_last_lr())
      ...     scheduler.step()
      0.25
      0.5
      0.75
      0.5

    Differences: `cycle_momentum` is ``True`` by default in PyTorch. MindSpore has no
    such option and leaves the betas alone; so does this class by default.
    """

    _lists = ("base_lrs", "max_lrs", "base_momentums", "max_momentums")

    def __init__(
        self,
        optimizer: HasParamGroups,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: float = 2000,
        step_size_down: float | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[Any], Any] | None = None,
        scale_mode: str = "cycle",
        last_epoch: int = -1,
        verbose: bool | str = False,
        *,
        cycle_momentum: bool = False,
        base_momentum: float | list[float] = 0.8,
        max_momentum: float | list[float] = 0.9,
    ) -> None:
        groups = param_groups(optimizer)
        base_lrs = numbers_per_group("base_lr", base_lr, groups)
        self.max_lrs = numbers_per_group("max_lr", max_lr, groups)
        _curves.check_cyclic(step_size_up, step_size_down, mode, gamma, scale_fn)
        self.total_size, self.step_ratio = _curves.cycle_sizes(
            step_size_up, step_size_down
        )
        self.mode = mode
        self.gamma = float(gamma)
        self._scale_fn_custom = scale_fn
        _, self.scale_mode = self._scale(scale_mode)
        self.optimizer = optimizer
        self.cycle_momentum = bool(cycle_momentum)
        with self._all_or_nothing():
            self.base_momentums, self.max_momentums = self._start_momentums(
                base_momentum, max_momentum, last_epoch
            )
            for group, lr in zip(groups, base_lrs, strict=True):
                group["lr"] = lr
            super().__init__(optimizer, last_epoch, verbose)
        # As in PyTorch, the constructor's step uses the groups' initial_lr, which an
        # earlier scheduler may have set; all later steps use base_lr.
        self.base_lrs = base_lrs

    def _scale(self, scale_mode: str) -> tuple[_curves.Scale, str]:
        return _curves.cycle_scale(
            self.mode, self.gamma, self._scale_fn_custom, scale_mode
        )

    def get_lr(self) -> list[float]:
        return self._between(self.base_lrs, self.max_lrs)

    def _momentums(self) -> list[float]:
        return self._between(self.max_momentums, self.base_momentums)

    def _between(self, lows: list[float], highs: list[float]) -> list[float]:
        sizes, scale = (self.total_size, self.step_ratio), self._scale(self.scale_mode)
        return [
            _curves.cyclic(self.last_epoch, low, high, *sizes, scale)
            for low, high in zip(lows, highs, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        fn = callable_state(self._scale_fn_custom)
        return {**super().state_dict(), "_scale_fn_custom": fn}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        fn = self._scale_fn_custom
        with self._all_or_nothing():
            if isinstance(state_dict, Mapping):
                load_callable(fn, state_dict.get("_scale_fn_custom"))
                # PyTorch's states have these two only if the momentum cycles.
                own = {
                    "base_momentums": self.base_momentums,
                    "max_momentums": self.max_momentums,
                }
                state_dict = {**own, **state_dict, "_scale_fn_custom": fn}
            super().load_state_dict(state_dict)

    def _parts(self) -> list[Any]:
        return [self, *filter(has_state, [self._scale_fn_custom])]

    def _join_new_groups(self) -> None:
        for group in self.optimizer.param_groups:
            initial_lr(group)
        super()._join_new_groups()
