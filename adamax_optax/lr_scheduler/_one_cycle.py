"""One cycle of the learning rate for the whole training."""

from adamax_optax.lr_scheduler import _curves
from adamax_optax.lr_scheduler._base import (
    HasParamGroups,
    numbers_per_group,
    param_groups,
)
from adamax_optax.lr_scheduler._cyclic import CyclesMomentum


class OneCycleLR(CyclesMomentum):
    """Raise the learning rate to `max_lr`, then lower it far below where it started.

    With T = `total_steps`, from step to step::

        0 ... pct_start T - 1:       max_lr / div_factor -> max_lr
        pct_start T - 1 ... T - 1:   max_lr -> max_lr / div_factor / final_div_factor

    or with `three_phase`::

        0 ... pct_start T - 1:                    max_lr / div_factor -> max_lr
        pct_start T - 1 ... 2 pct_start T - 2:    max_lr -> max_lr / div_factor
        2 pct_start T - 2 ... T - 1:              max_lr / div_factor -> the minimum

    Step it after every batch. Not chainable: it overwrites the changes of other
    schedulers, and the optimizer's own learning rate.

    Args:
      optimizer: See `LRScheduler`. The groups get the entries ``"initial_lr"``,
        ``"max_lr"``, ``"min_lr"`` (and with `cycle_momentum` ``"max_momentum"`` and
        ``"base_momentum"``), which the steps read, as in PyTorch.
      max_lr: Highest learning rate, a number >= 0, or a list with one per group.
      total_steps: Number of steps, an int >= 1; default `epochs` * `steps_per_epoch`.
      epochs, steps_per_epoch: Ints >= 1; ignored if `total_steps` is given.
      pct_start: Share of the steps that raises the learning rate, a number in [0, 1],
        default 0.3.
      anneal_strategy: ``"cos"`` (default) joins the values by half cosines,
        ``"linear"`` by lines.
      cycle_momentum: Whether to move beta1 against the learning rate, from
        `max_momentum` at the ends to `base_momentum` at the peak. Default ``True``.
      base_momentum: Lowest beta1, a number in [0, 1), default 0.85, or a list with one
        per group.
      max_momentum: Highest beta1, a number in [0, 1), default 0.95, or a list.
      div_factor: `max_lr` over the first learning rate, a number > 0, default 25.
      final_div_factor: First learning rate over the last, a number > 0, default 1e4.
      three_phase: Whether to return to the first learning rate before the last.
      last_epoch, verbose: See `LRScheduler`; an epoch is a step. Unless `last_epoch`
        is -1, the groups must have the entries above.

    Raises:
      TypeError: If a number has the wrong type.
      ValueError: If an argument is out of range, a list does not have one entry per
        group, or the number of steps is not given; in `step`, at more than
        `total_steps` calls.
      KeyError: If `last_epoch` is not -1 and a group lacks an entry.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> optimizer = ao.Adamax(jnp.zeros(3))
      >>> scheduler = ao.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
      >>> for _ in range(3):
      ...     print(f"{scheduler.get_last_lr()[0]:.3g}")
      ...     scheduler.step()
      0.004
      0.052
      0.1

    Differences: MindSpore does not have this class. PyTorch allows one step after the
    last, at which its linear strategy leaves the range, usually for a negative learning
    rate; here the curve stays at its end. A phase of length 0, where PyTorch divides by
    0, has its end value. A group added later gets its entries from the others, if these
    agree.
    """

    def __init__(
        self,
        optimizer: HasParamGroups,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
        verbose: bool | str = False,
    ) -> None:
        groups = param_groups(optimizer)
        max_lrs = numbers_per_group("max_lr", max_lr, groups)
        _curves.check_one_cycle(
            pct_start, anneal_strategy, div_factor, final_div_factor
        )
        self.total_steps = _curves.one_cycle_steps(total_steps, epochs, steps_per_epoch)
        self._schedule_phases = _curves.one_cycle_phases(
            self.total_steps, pct_start, three_phase
        )
        self._anneal_func_type = anneal_strategy
        self.optimizer = optimizer
        self.cycle_momentum = bool(cycle_momentum)
        with self._all_or_nothing():
            self._start_momentums(base_momentum, max_momentum, last_epoch)
            for group, top in zip(groups, max_lrs, strict=True):
                if last_epoch == -1:
                    low = top / float(div_factor)
                    least = low / float(final_div_factor)
                    group.update(initial_lr=low, max_lr=top, min_lr=least)
            super().__init__(optimizer, last_epoch, verbose)

    def _join_new_groups(self) -> None:
        groups = self.optimizer.param_groups
        needed = ["initial_lr", "max_lr", "min_lr"]
        needed += ["max_momentum", "base_momentum"] if self.cycle_momentum else []
        for group in groups[len(self.base_lrs) :]:
            if "max_lr" not in group:
                group.pop("initial_lr", None)  # another scheduler's
        for name in needed:
            known = {group.get(name) for group in groups[: len(self.base_lrs)]}
            for i, group in enumerate(groups):
                if name not in group and (len(known) != 1 or None in known):
                    raise KeyError(
                        f"param_groups[{i}] has no {name!r}, which OneCycleLR needs: "
                        "load the optimizer's saved state first, or, for a group added "
                        "later, set it in the group, since the others differ."
                    )
                group.setdefault(name, next(iter(known)))
        super()._join_new_groups()

    def get_lr(self) -> list[float]:
        if self.last_epoch > self.total_steps:
            raise ValueError(
                f"OneCycleLR has {self.total_steps} steps, but this is step "
                f"{self.last_epoch}: make it with more total_steps."
            )
        return self._annealed("lr")

    def _momentums(self) -> list[float]:
        return self._annealed("momentum")

    def _annealed(self, what: str) -> list[float]:
        return [
            _curves.one_cycle(
                self.last_epoch,
                self._schedule_phases,
                group,
                what,
                self._anneal_func_type,
            )
            for group in self.optimizer.param_groups
        ]
