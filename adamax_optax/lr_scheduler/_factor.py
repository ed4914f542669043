"""Curves of the form base_lr · f(t), chained by what f changes from epoch to epoch."""

from typing import Any

from adamax_optax import _curves
from adamax_optax.lr_scheduler._base import LRScheduler


class FactorLR(LRScheduler):
    """Multiply the current learning rate by f(t) / f(t-1).

    On its own that is base_lr · f(t). With several schedulers it is the product of
    their factors, whoever else has changed the learning rate in between.
    """

    # PyTorch, resuming: does the curve stay where the groups' learning rates are?
    _stays_on_resume = False

    def _factor(self, t: Any) -> Any:
        """f(t), which each class defines."""

    def _change(self, t: Any) -> Any:
        """f(t) / f(t-1), or None where f(t-1) = 0 has lost the learning rate."""
        now, before = self._factor(t), self._factor(t - 1)
        if now == before:
            return 1.0
        return now / before if before else None

    def get_lr(self) -> list[float]:
        lrs = self._last_lr
        if self.last_epoch == 0:
            return [lr * self._factor(0) for lr in lrs]
        if self._is_initial and self._stays_on_resume:
            return lrs
        change = self._change(self.last_epoch)
        if change is None:
            return self._get_closed_form_lr()
        return [lr * change for lr in lrs]

    def _get_closed_form_lr(self) -> list[float]:
        factor = self._factor(self.last_epoch)
        return [base_lr * factor for base_lr in self.base_lrs]


class DecayLR(FactorLR):
    """f(t) = gamma^k(t), with k(t) the number of decays so far."""

    gamma: float

    def _decays(self, t: Any) -> Any:
        """k(t), which each class defines."""

    def _factor(self, t: Any) -> Any:
        return _curves.geometric(self.gamma, self._decays(t))

    def _change(self, t: Any) -> Any:
        # gamma^k(t) itself falls below the smallest float64 in a long run.
        return _curves.geometric(self.gamma, self._decays(t) - self._decays(t - 1))
