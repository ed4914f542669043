"""Reduce the learning rate when a metric stops improving."""

import math
from typing import Any

from adamax_optax._checks import as_float, check_real
from adamax_optax.lr_scheduler._base import (
    HasParamGroups,
    LRScheduler,
    as_epoch,
    as_verbose,
    extended,
    group_lrs,
    numbers_per_group,
    param_groups,
)
from adamax_optax.lr_scheduler._curves import check_count


class ReduceLROnPlateau(LRScheduler):
    """Multiply the learning rate by `factor` when a metric stops improving.

    A metric a is better than the best so far, b, if

    ========  =====================  =================
    `mode`    ``"rel"``              ``"abs"``
    ========  =====================  =================
    ``min``   a < b (1 - threshold)  a < b - threshold
    ``max``   a > b (1 + threshold)  a > b + threshold
    ========  =====================  =================

    NaN is never better. After more than `patience` steps in a row without a better
    metric, the learning rate is reduced and the next `cooldown` steps do not count.

    Args:
      optimizer: See `LRScheduler`.
      mode: ``"min"`` (default) if lower is better, ``"max"`` if higher is.
      factor: Factor of each reduction, a number in [0, 1), default 0.1.
      patience: Steps without improvement that are tolerated, an int >= 0, default 10.
      threshold: Smallest improvement that counts, a number >= 0, default 1e-4.
      threshold_mode: ``"rel"`` (default) or ``"abs"``.
      cooldown: Steps that do not count after a reduction, an int >= 0, default 0.
      min_lr: Lower bound of the learning rate, a number >= 0 or a list with one per
        group, default 0.
      eps: Reductions of at most this size are skipped, a number >= 0, default 1e-8.
      verbose: As in PyTorch up to 2.6: whether to print each reduction.

    Raises:
      TypeError: If an argument has the wrong type.
      ValueError: If an argument is out of range, or `min_lr` is a list without exactly
        one entry per group.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> optimizer = ao.Adamax(jnp.zeros(3), lr=0.1)
      >>> scheduler = ao.lr_scheduler.ReduceLROnPlateau(optimizer, "min", patience=0)
      >>> for metric in [1, 1.5, 0.4, 0.5]:
      ...     scheduler.step(metric)
      ...     print(f"{scheduler.get_last_lr()[0]:.3g}")
      0.1
      0.01
      0.01
      0.001

    Differences: `in_cooldown` is a method, as in MindSpore; PyTorch has a property.
    MindSpore compares in float32, PyTorch and this class in float64. As in both, there
    is no ``initial_lr``, no ``base_lrs`` and no `last_epoch` argument.
    """

    _lists = ("min_lrs",)

    def __init__(
        self,
        optimizer: HasParamGroups,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | list[float] = 0,
        eps: float = 1e-8,
        verbose: bool | str = False,
    ) -> None:
        groups = param_groups(optimizer)
        if mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {mode!r}.")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(
                f"threshold_mode must be 'rel' or 'abs', got {threshold_mode!r}."
            )
        check_real("factor", factor, 0.0, 1.0, without_high=True)
        check_count("patience", patience, 0)
        check_real("threshold", threshold, 0.0)
        check_count("cooldown", cooldown, 0)
        check_real("eps", eps, 0.0)
        min_lrs = numbers_per_group("min_lr", min_lr, groups)
        self._verbose = as_verbose(verbose)
        self.optimizer = optimizer
        self.mode = mode
        self.factor = float(factor)
        self.patience = int(patience)
        self.threshold = float(threshold)
        self.threshold_mode = threshold_mode
        self.cooldown = int(cooldown)
        self.min_lrs = min_lrs
        self.eps = float(eps)
        self.last_epoch = 0
        self.best = math.inf if mode == "min" else -math.inf
        self.cooldown_counter = 0
        self.num_bad_epochs = 0
        self._last_lr = group_lrs(optimizer)

    def step(self, metrics: Any, epoch: Any = None) -> None:  # type: ignore[override]
        """Record the metric, and reduce the learning rates if it is time.

        Args:
          metrics: The metric, one number.
          epoch: Number to give this epoch, >= 0, or ``None`` (default): one more than
            the last. It does not affect the learning rate.

        Raises:
          TypeError: If `metrics` is not one number.
          ValueError: If `epoch` is not a finite number >= 0.
        """
        metric = as_float("metrics", metrics)
        epoch = as_epoch(epoch)
        with self._all_or_nothing():
            self._join_new_groups()
            self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
            if self._is_better(metric):
                self.best = metric
                self.num_bad_epochs = 0
            else:
                self.num_bad_epochs += 1
            if self.in_cooldown():
                self.cooldown_counter -= 1
                self.num_bad_epochs = 0
            lrs = before = group_lrs(self.optimizer)
            if self.num_bad_epochs > self.patience:
                lrs = [
                    self._reduced(lr, least)
                    for lr, least in zip(lrs, self.min_lrs, strict=True)
                ]
                self.cooldown_counter = self.cooldown
                self.num_bad_epochs = 0
            self._last_lr = self._set_lrs(lrs)
        if self._verbose:
            for i, (lr, old) in enumerate(zip(lrs, before, strict=True)):
                if lr != old:
                    print(
                        f"Epoch {self.last_epoch}: reducing learning rate of group {i} "
                        f"to {lr:.4e}."
                    )

    def in_cooldown(self) -> bool:
        """Return whether a cooldown is in progress, in which bad steps do not count."""
        return self.cooldown_counter > 0

    def _reduced(self, lr: float, least: float) -> float:
        reduced = max(lr * self.factor, least)
        return reduced if lr - reduced > self.eps else lr

    def _is_better(self, metric: float) -> bool:
        low = self.mode == "min"
        margin = -self.threshold if low else self.threshold
        # Not best + best · margin: the initial best is infinite, and ∞ - ∞ is NaN.
        relative = self.threshold_mode == "rel"
        bound = self.best * (1 + margin) if relative else self.best + margin
        return metric < bound if low else metric > bound

    def _join_new_groups(self) -> None:
        groups = self.optimizer.param_groups
        self.min_lrs = extended("min_lrs", self.min_lrs, len(groups))
