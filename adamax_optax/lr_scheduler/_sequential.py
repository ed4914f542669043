"""Schedulers that run one after another."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from adamax_optax._checks import check_int
from adamax_optax.lr_scheduler import _curves
from adamax_optax.lr_scheduler._base import (
    HasParamGroups,
    LRScheduler,
    all_or_nothing,
    initial_lr,
    param_groups,
)
from adamax_optax.lr_scheduler._plateau import ReduceLROnPlateau


class SequentialLR(LRScheduler):
    r"""Step one scheduler after another, changing to the next at each milestone.

    .. math:: \eta_t = \eta^{(i)}_{t - m_i}, \quad m_i \le t < m_{i+1}, \; m_0 = 0

    At its milestone a scheduler starts at its own epoch 0, from the initial learning
    rate. An entry may be a `SequentialLR` too; its milestones count from its own start.

    Args:
      optimizer, last_epoch: See `LRScheduler`.
      schedulers: The schedulers, all made on this optimizer.
      milestones: Epochs at which the second, third, … start: ints >= 0 that do not
        decrease, one fewer than there are schedulers.

    Raises:
      TypeError: If a milestone is not an int, or an entry is not an `LRScheduler`.
      ValueError: If a scheduler has another optimizer or is a `ReduceLROnPlateau`, or
        the milestones do not fit.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> optimizer = ao.Adamax(jnp.zeros(3), lr=0.1)
      >>> warmup = ao.lr_scheduler.ConstantLR(optimizer, factor=0.1, total_iters=2)
      >>> decay = ao.lr_scheduler.ExponentialLR(optimizer, gamma=0.9)
      >>> scheduler = ao.lr_scheduler.SequentialLR(optimizer, [warmup, decay], [2])
      >>> lrs = []
      >>> for _ in range(6):
      ...     scheduler.step()
      ...     lrs += scheduler.get_last_lr()
      >>> print(*(f"{lr:.4g}" for lr in lrs))
      0.01 0.1 0.09 0.081 0.0729 0.06561

    Differences: A nested `SequentialLR` acts as if its schedulers were in the outer
    list. In PyTorch and MindSpore it is one epoch off when it comes first, and raises
    when it comes later.
    """

    def __init__(
        self,
        optimizer: HasParamGroups,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        groups = param_groups(optimizer)
        _curves.check_sequence("schedulers", schedulers, milestones)
        check_int("last_epoch", last_epoch, -1, wrong_type=ValueError)
        for i, scheduler in enumerate(schedulers):
            if not isinstance(scheduler, LRScheduler):
                raise TypeError(
                    f"schedulers[{i}] must be a scheduler from "
                    f"adamax_optax.lr_scheduler, got {scheduler!r}"
                )
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ValueError(
                    f"schedulers[{i}] is a ReduceLROnPlateau, whose step needs a "
                    "metric: step it separately, after the SequentialLR"
                )
            if scheduler.optimizer is not optimizer:
                raise ValueError(
                    f"schedulers[{i}], a {type(scheduler).__name__}, has another "
                    "optimizer: make it with the one given to SequentialLR"
                )
        self.optimizer = optimizer
        self._schedulers = list(schedulers)
        self._milestones = [int(milestone) for milestone in milestones]
        self.last_epoch = int(last_epoch) + 1
        with all_or_nothing(self, groups):
            for group in groups:
                group["lr"] = initial_lr(group)
            self._rewind()
            self._initial_step()

    def step(self) -> None:  # type: ignore[override]
        """Set the learning rates for the next epoch, with the scheduler in charge."""
        epoch = self.last_epoch + 1
        scheduler, since = self._turn(epoch)
        if since == 0:
            scheduler._update_lr(0)
        else:
            scheduler.step()
        self._passed(epoch, scheduler)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the schedulers' states under ``"_schedulers"``."""
        states = [scheduler.state_dict() for scheduler in self._schedulers]
        return {**super().state_dict(), "_schedulers": states}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the attributes; see `LRScheduler.load_state_dict`."""
        schedulers = self._schedulers
        states = state_dict.get("_schedulers", ())
        if len(states) != len(schedulers):
            raise ValueError(
                f"state_dict['_schedulers'] must have {len(schedulers)} states, one "
                f"for each scheduler; got {len(states)}"
            )
        before = [scheduler.state_dict() for scheduler in schedulers]
        try:
            for scheduler, state in zip(schedulers, states, strict=True):
                scheduler.load_state_dict(state)
            super().load_state_dict({**state_dict, "_schedulers": schedulers})
        except BaseException:
            for scheduler, state in zip(schedulers, before, strict=True):
                scheduler.load_state_dict(state)
            raise

    def _turn(self, epoch: int) -> tuple[LRScheduler, int]:
        """Return the scheduler in charge at `epoch`, and the epochs since its start."""
        index = bisect_right(self._milestones, epoch)
        start = self._milestones[index - 1] if index else 0
        return self._schedulers[index], epoch - start

    def _passed(self, epoch: int, scheduler: LRScheduler) -> None:
        self.last_epoch = epoch
        self._last_lr = scheduler.get_last_lr()

    def _initial_step(self) -> None:
        scheduler, _ = self._turn(0)
        scheduler._initial_step()
        self._passed(self.last_epoch + 1, scheduler)

    def _rewind(self) -> None:
        super()._rewind()
        for scheduler in self._schedulers:
            scheduler._rewind()

    def _update_lr(self, epoch: Any = None) -> None:
        # Called only by an outer SequentialLR, to start this one at its epoch 0.
        scheduler, since = self._turn(epoch)
        scheduler._update_lr(since)
        self._passed(epoch, scheduler)
