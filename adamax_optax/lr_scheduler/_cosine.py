"""Cosine annealing, with and without restarts."""

import math
from typing import Any

from adamax_optax.lr_scheduler import _curves
from adamax_optax.lr_scheduler._base import HasParamGroups, LRScheduler


class CosineAnnealingLR(LRScheduler):
    """Move the learning rate to `eta_min` in `T_max` epochs along half a cosine.

    At epoch t::

        lr(t) = eta_min + (initial_lr - eta_min) * (1 + cos(pi t / T_max)) / 2

    After epoch `T_max` it rises again, with period 2 `T_max`. Chained, each step scales
    the current distance from `eta_min`. Other schedulers should not go below `eta_min`
    (give `ReduceLROnPlateau` a ``min_lr``): the rising cosine enlarges a negative
    distance, in PyTorch too, until `Adamax` refuses a negative learning rate.

    Args:
      optimizer, last_epoch, verbose: See `LRScheduler`.
      T_max: Epochs until the minimum, a number > 0.
      eta_min: The minimum, a number >= 0, default 0.

    Raises:
      TypeError, ValueError: If an argument has the wrong type or is out of range.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> optimizer = ao.Adamax(jnp.zeros(3), lr=0.1)
      >>> scheduler = ao.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2)
      >>> for _ in range(4):
      ...     print(f"{scheduler.get_last_lr()[0]:.3g}")
      ...     scheduler.step()
      0.1
      0.05
      0
      0.05

    Differences: ``T_max=0`` raises at once; PyTorch divides by it at the first step.
    """

    def __init__(
        self,
        optimizer: HasParamGroups,
        T_max: float,
        eta_min: float = 0.0,
        last_epoch: int = -1,
        verbose: bool | str = False,
    ) -> None:
        _curves.check_cosine(T_max, eta_min)
        self.T_max = _curves.whole(T_max)
        self.eta_min = float(eta_min)
        super().__init__(optimizer, last_epoch, verbose)

    def get_lr(self) -> list[float]:
        if self._is_initial:
            return self._last_lr
        t = self.last_epoch
        now = _curves.half_cosine(t, self.T_max)
        before = _curves.half_cosine(t - 1, self.T_max)
        if before == 0:  # η_{t-1} = η_min: no distance left to scale, so rise from 0
            return [
                lr + (base_lr - self.eta_min) * now
                for lr, base_lr in zip(self._last_lr, self.base_lrs, strict=True)
            ]
        # η_t - η_min = (η_{t-1} - η_min) c(t) / c(t-1)
        low = self.eta_min
        lrs = [low + (lr - low) * (now / before) for lr in self._last_lr]
        # Where the curve touches 0, rounding may lead below it, as in PyTorch.
        return [0.0 if -1e-15 < lr < 0 else lr for lr in lrs]

    def _get_closed_form_lr(self) -> list[float]:
        share = _curves.half_cosine(self.last_epoch, self.T_max)
        return [self.eta_min + (lr - self.eta_min) * share for lr in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Move the learning rate to `eta_min` along half a cosine, then restart.

    At epoch t::

        lr(t) = eta_min + (initial_lr - eta_min) * (1 + cos(pi T_cur / T_i)) / 2

    T_cur epochs have passed since the last restart, and the cycle lasts
    T_i = T_0 * T_mult^i epochs. ``step(epoch + i / iters)`` after batch i changes the
    learning rate within an epoch. Not chainable: it overwrites the changes of other
    schedulers.

    Args:
      optimizer, last_epoch, verbose: See `LRScheduler`.
      T_0: Epochs until the first restart, an int >= 1.
      T_mult: Growth of the cycle at each restart, an int >= 1, default 1.
      eta_min: The minimum, a number >= 0, default 0.

    Raises:
      ValueError: If an argument has the wrong type or is out of range.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> optimizer = ao.Adamax(jnp.zeros(3), lr=0.1)
      >>> scheduler = ao.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 2)
      >>> for epoch in (0, 2 / 3, 1, 2):
      ...     scheduler.step(epoch)
      ...     print(f"{scheduler.get_last_lr()[0]:.3g}")
      0.1
      0.075
      0.05
      0.1

    Differences: MindSpore's documentation requires ``T_mult > 1``; its code, its
    default and PyTorch accept 1, and so does this class. With ``T_mult > 1``,
    `step(epoch)` beyond `T_0` raises in MindSpore and misses some restarts in PyTorch
    (by rounding a logarithm, the fifth for ``T_mult=3``). Both libraries resume in the
    wrong cycle at a `last_epoch` after the second restart.
    """

    def __init__(
        self,
        optimizer: HasParamGroups,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0,
        last_epoch: int = -1,
        verbose: bool | str = False,
    ) -> None:
        _curves.check_warm_restarts(T_0, T_mult, eta_min)
        self.T_0 = int(T_0)
        self.T_i = self.T_0
        self.T_mult = int(T_mult)
        self.eta_min = float(eta_min)
        self.T_cur: int | float = last_epoch
        super().__init__(optimizer, last_epoch, verbose)

    def get_lr(self) -> list[float]:
        share = _curves.half_cosine(self.T_cur, self.T_i)
        return [self.eta_min + (lr - self.eta_min) * share for lr in self.base_lrs]

    def _next_lrs(self, epoch: Any) -> list[Any]:
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            # The cycles before this one last (T_i - T_0) / (T_mult - 1) epochs in all;
            # for T_mult = 1 any number of cycles gives the same result.
            t = (self.T_i - self.T_0) // max(self.T_mult - 1, 1) + self.T_cur + 1
            self.last_epoch += 1
        else:
            t = epoch
            self.last_epoch = math.floor(epoch)
        T_cur, T_i = _curves.warm_restart(t, self.T_0, self.T_mult)
        self.T_cur, self.T_i = float(T_cur), int(T_i)
        return self.get_lr()
