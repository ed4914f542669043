"""Schedulers made of others: one after another, or all at once."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from adamax_optax._checks import check_int
from adamax_optax.lr_scheduler import _curves
from adamax_optax.lr_scheduler._base import (
    HasParamGroups,
    LRScheduler,
    as_verbose,
    group_lrs,
    initial_lr,
    param_groups,
)
from adamax_optax.lr_scheduler._plateau import ReduceLROnPlateau


class _CompositeLR(LRScheduler):
    """Schedulers that are stepped and saved together."""

    _schedulers: list[LRScheduler]

    def _take(self, optimizer: Any, schedulers: Sequence[Any]) -> None:
        """Check the parts, and set them as attributes."""
        for i, scheduler in enumerate(schedulers):
            if not isinstance(scheduler, LRScheduler):
                raise TypeError(
                    f"schedulers[{i}] must be a scheduler from "
                    f"adamax_optax.lr_scheduler, got {scheduler!r}."
                )
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ValueError(
                    f"schedulers[{i}] is a ReduceLROnPlateau, whose step needs a "
                    f"metric: step it separately, after the {type(self).__name__}."
                )
            if scheduler.optimizer is not optimizer:
                raise ValueError(
                    f"schedulers[{i}], a {type(scheduler).__name__}, has another "
                    f"optimizer: make it with the one of the {type(self).__name__}."
                )
        self.optimizer = optimizer
        self._schedulers = list(schedulers)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the schedulers' states under ``"_schedulers"``."""
        states = [scheduler.state_dict() for scheduler in self._schedulers]
        return {**super().state_dict(), "_schedulers": states}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        schedulers = self._schedulers
        states = self._states(state_dict, "_schedulers")
        if len(states) != len(schedulers):
            raise ValueError(
                f"state_dict['_schedulers'] must have {len(schedulers)} states, one "
                f"for each scheduler; got {len(states)}."
            )
        # The parts of PyTorch's states have only what each of them set last.
        lrs = state_dict.get("_group_lrs", state_dict.get("_last_lr"))
        with self._all_or_nothing():
            for scheduler, state in zip(schedulers, states, strict=True):
                if isinstance(state, Mapping) and lrs is not None:
                    state = {"_group_lrs": lrs, **state}
                scheduler.load_state_dict(state)
            super().load_state_dict({**state_dict, "_schedulers": schedulers})

    def _parts(self) -> list[Any]:
        return [self, *(part for s in self._schedulers for part in s._parts())]

    def _rewind(self) -> None:
        for scheduler in self._schedulers:
            scheduler._rewind()

    def _start(self) -> None:
        """Go to epoch 0, from the groups' initial learning rates."""
        for group in self.optimizer.param_groups:
            group["lr"] = initial_lr(group)
        self._rewind()
        self._initial_step()


class SequentialLR(_CompositeLR):
    """Step one scheduler after another, changing to the next at each milestone.

    At epoch t::

        lr(t) = lr_i(t - m_i)    for m_i <= t < m_(i+1), with m_0 = 0

    At its milestone a scheduler starts at its own epoch 0, from the initial learning
    rate. An entry may be a `SequentialLR` too; its milestones count from its own start.

    Args:
      optimizer: See `LRScheduler`.
      schedulers: The schedulers, all made on this optimizer.
      milestones: Epochs at which the second, third, … start: ints >= 0 that do not
        decrease, one fewer than there are schedulers.
      last_epoch: Last finished epoch, an int >= -1, default -1. The schedulers resume
        as after ``last_epoch + 1`` steps.
      verbose: Ignored, as in PyTorch up to 2.6: the schedulers have their own.

    Raises:
      TypeError: If a milestone is not an int, or an entry is not an `LRScheduler`.
      ValueError: If a scheduler has another optimizer or is a `ReduceLROnPlateau`, or
        the milestones do not fit.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> optimizer = ao.Adamax(jnp.zeros(3), lr=0.8)
      >>> warmup = ao.lr_scheduler.ConstantLR(optimizer, 0.5, total_iters=2)
      >>> decay = ao.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
      >>> scheduler = ao.lr_scheduler.SequentialLR(optimizer, [warmup, decay], [2])
      >>> for _ in range(4):
      ...     print(*scheduler.get_last_lr())
      ...     scheduler.step()
      0.4
      0.4
      0.8
      0.4

    Differences: A nested `SequentialLR` acts as if its schedulers were in the outer
    list. In PyTorch and MindSpore it is one epoch off when it comes first, and raises
    when it comes later. Given a `last_epoch`, both count from it and still start with
    the first scheduler, from the initial learning rate.
    """

    def __init__(
        self,
        optimizer: HasParamGroups,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
        verbose: bool | str = False,
    ) -> None:
        param_groups(optimizer)  # raises if there are none
        _curves.check_sequence("schedulers", schedulers, milestones)
        check_int("last_epoch", last_epoch, -1, wrong_type=ValueError)
        self._verbose = as_verbose(verbose)
        self._take(optimizer, schedulers)
        self._milestones = [int(milestone) for milestone in milestones]
        with self._all_or_nothing():
            self._start()
            for _ in range(last_epoch + 1):
                self.step()
        self._note_made()

    def step(self) -> None:  # type: ignore[override]
        """Set the learning rates for the next epoch, with the scheduler in charge."""
        with self._all_or_nothing():
            epoch = self.last_epoch + 1
            scheduler, since = self._turn(epoch)
            if since == 0:
                scheduler._update_lr(0)
            else:
                scheduler.step()
            self._passed(epoch, scheduler)

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
        self._passed(0, scheduler)

    def _rewind(self) -> None:
        super()._rewind()
        self.last_epoch = -1

    def _update_lr(self, epoch: Any) -> None:
        # Called only by an outer SequentialLR, to start this one at its epoch 0.
        scheduler, since = self._turn(epoch)
        scheduler._update_lr(since)
        self._passed(epoch, scheduler)


class ChainedScheduler(_CompositeLR):
    """Step several schedulers at once, each changing what it finds.

    At epoch t, with factors f_1, f_2, … of chainable schedulers::

        lr(t) = initial_lr * f_1(t) * f_2(t) * ...

    Args:
      schedulers: The schedulers, all made on one optimizer, in the order in which they
        step. They set the first epoch's learning rate when they are made.
      optimizer: Their optimizer; ``None`` (default) takes it from them.

    Raises:
      TypeError: If an entry is not an `LRScheduler`.
      ValueError: If the list is empty, or if a scheduler has another optimizer or is a
        `ReduceLROnPlateau`.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> optimizer = ao.Adamax(jnp.zeros(3), lr=0.8)
      >>> warmup = ao.lr_scheduler.ConstantLR(optimizer, 0.5, total_iters=2)
      >>> decay = ao.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
      >>> scheduler = ao.lr_scheduler.ChainedScheduler([warmup, decay])
      >>> for _ in range(4):
      ...     print(*scheduler.get_last_lr())
      ...     scheduler.step()
      0.4
      0.2
      0.2
      0.1

    Differences: MindSpore does not have this class. In a `SequentialLR` it starts from
    the initial learning rate when its turn comes; PyTorch's is one epoch off when it
    comes first, and raises when it comes later.
    """

    def __init__(
        self, schedulers: Sequence[LRScheduler], optimizer: HasParamGroups | None = None
    ) -> None:
        if len(schedulers) == 0:
            raise ValueError(f"schedulers must hold at least one, got {schedulers!r}.")
        if optimizer is None:
            optimizer = getattr(schedulers[0], "optimizer", None)
        self._take(optimizer, schedulers)
        self._last_lr = group_lrs(self.optimizer)

    def step(self) -> None:  # type: ignore[override]
        """Step each scheduler once."""
        with self._all_or_nothing():
            for scheduler in self._schedulers:
                scheduler.step()
            self._last_lr = group_lrs(self.optimizer)

    def _initial_step(self) -> None:
        for scheduler in self._schedulers:
            scheduler._initial_step()
        self._last_lr = group_lrs(self.optimizer)

    def _update_lr(self, epoch: Any) -> None:
        # Called only by a SequentialLR, to start this one at its epoch 0.
        self._start()
