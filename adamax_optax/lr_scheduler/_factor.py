"""Curves of the form base_lr · f(t), chained through the ratio f(t) / f(t-1)."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from adamax_optax.lr_scheduler import _curves
from adamax_optax.lr_scheduler._base import HasParamGroups, LRScheduler


class FactorLR(LRScheduler):
    """Multiply the current learning rate by f(t) / f(t-1).

    Alone, this gives base_lr · f(t). Chained, the factors of all schedulers multiply,
    and a change that anyone else makes to the learning rate is kept.
    """

    # Whether resuming at a last_epoch keeps the groups' learning rates, as in PyTorch.
    _stays_on_resume = False

    def _factor(self, t):
        """Return f(t); each class defines it."""

    def _change(self, t):
        """Return f(t) / f(t-1), or None if f(t-1) = 0 has erased the learning rate."""
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

    def _decays(self, t):
        """Return k(t); each class defines it."""

    def _factor(self, t):
        return _curves.geometric(self.gamma, self._decays(t))

    def _change(self, t):
        # Not a ratio of powers: gamma^k(t) underflows in a long run.
        return _curves.geometric(self.gamma, self._decays(t) - self._decays(t - 1))


class StepLR(DecayLR):
    """Multiply the learning rate by `gamma` every `step_size` epochs.

    At epoch t::

        lr(t) = initial_lr * gamma^floor(t / step_size)

    Args:
      optimizer, last_epoch, verbose: See `LRScheduler`.
      step_size: Epochs from one decay to the next, an int >= 1.
      gamma: Factor of each decay, a number >= 0, default 0.1.

    Raises:
      TypeError, ValueError: If an argument has the wrong type or is out of range.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> optimizer = ao.Adamax(jnp.zeros(3), lr=0.8)
      >>> scheduler = ao.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
      >>> for _ in range(3):
      ...     print(*scheduler.get_last_lr())
      ...     scheduler.step()
      0.8
      0.8
      0.4

    Differences: MindSpore's documentation gives 0.5 as the default of `gamma`; its
    signature, PyTorch and this class have 0.1. MindSpore refuses an int `gamma`.
    """

    def __init__(
        self,
        optimizer: HasParamGroups,
        step_size: int,
        gamma: float = 0.1,
        last_epoch: int = -1,
        verbose: bool | str = False,
    ) -> None:
        _curves.check_step(step_size, gamma)
        self.step_size = int(step_size)
        self.gamma = float(gamma)
        super().__init__(optimizer, last_epoch, verbose)

    def _decays(self, t):
        return t // self.step_size


class MultiStepLR(DecayLR):
    """Multiply the learning rate by `gamma` at each milestone.

    At epoch t::

        lr(t) = initial_lr * gamma^(number of milestones <= t)

    Args:
      optimizer, last_epoch, verbose: See `LRScheduler`.
      milestones: Epochs, ints >= 0 in any order. An epoch listed twice counts twice.
      gamma: Factor of each decay, a number >= 0, default 0.1.

    Raises:
      TypeError, ValueError: If an argument has the wrong type or is out of range.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> optimizer = ao.Adamax(jnp.zeros(3), lr=0.8)
      >>> scheduler = ao.lr_scheduler.MultiStepLR(optimizer, [1, 3], gamma=0.5)
      >>> for _ in range(4):
      ...     print(*scheduler.get_last_lr())
      ...     scheduler.step()
      0.8
      0.4
      0.4
      0.2

    Differences: MindSpore accepts only a list of milestones, and its ``step(epoch)``
    fails. This class accepts any sequence, and its ``step(epoch)`` is PyTorch's.
    """

    def __init__(
        self,
        optimizer: HasParamGroups,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
        verbose: bool | str = False,
    ) -> None:
        _curves.check_milestones(milestones)
        _curves.check_gamma(gamma)
        self._milestones = sorted(int(milestone) for milestone in milestones)
        self.gamma = float(gamma)
        super().__init__(optimizer, last_epoch, verbose)

    @property
    def milestones(self) -> Counter[int]:
        """The milestones and how often each counts, as in PyTorch."""
        return Counter(self._milestones)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        if isinstance(state_dict, Mapping) and "milestones" in state_dict:
            # PyTorch's form, whose keys JSON and MessagePack do not keep.
            others = dict(state_dict)
            milestones = others.pop("milestones")
            try:
                counts = Counter({int(m): int(n) for m, n in milestones.items()})
            except (AttributeError, TypeError, ValueError):
                raise ValueError(
                    "state_dict['milestones'] must be a dict from epochs to how often "
                    f"each counts, got {milestones!r}."
                ) from None
            state_dict = {**others, "_milestones": sorted(counts.elements())}
        super().load_state_dict(state_dict)

    def _decays(self, t):
        return _curves.milestones_passed(t, self._milestones)


class ExponentialLR(DecayLR):
    """Multiply the learning rate by `gamma` every epoch.

    At epoch t::

        lr(t) = initial_lr * gamma^t

    Args:
      optimizer, last_epoch, verbose: See `LRScheduler`.
      gamma: Factor of each decay, a number >= 0.

    Raises:
      TypeError, ValueError: If an argument has the wrong type or is out of range.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> optimizer = ao.Adamax(jnp.zeros(3), lr=0.8)
      >>> scheduler = ao.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
      >>> for _ in range(3):
      ...     print(*scheduler.get_last_lr())
      ...     scheduler.step()
      0.8
      0.4
      0.2

    Differences: MindSpore refuses an int `gamma`.
    """

    _stays_on_resume = True

    def __init__(
        self,
        optimizer: HasParamGroups,
        gamma: float,
        last_epoch: int = -1,
        verbose: bool | str = False,
    ) -> None:
        _curves.check_gamma(gamma)
        self.gamma = float(gamma)
        super().__init__(optimizer, last_epoch, verbose)

    def _decays(self, t):
        return t


class ConstantLR(FactorLR):
    """Multiply the learning rate by `factor` until epoch `total_iters`.

    At epoch t::

        lr(t) = initial_lr * factor    if t < total_iters
        lr(t) = initial_lr             otherwise

    Args:
      optimizer, last_epoch, verbose: See `LRScheduler`.
      factor: A number in [0, 1], default 1/3.
      total_iters: Epoch that restores the learning rate, an int >= 0, default 5.

    Raises:
      TypeError, ValueError: If an argument has the wrong type or is out of range.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> optimizer = ao.Adamax(jnp.zeros(3), lr=0.8)
      >>> scheduler = ao.lr_scheduler.ConstantLR(optimizer, 0.5, total_iters=2)
      >>> for _ in range(3):
      ...     print(*scheduler.get_last_lr())
      ...     scheduler.step()
      0.4
      0.4
      0.8

    Differences: With ``total_iters=0`` the factor never applies; in both libraries it
    always does, although MindSpore documents that the learning rate is restored when
    `last_epoch` reaches `total_iters`. With ``factor=0`` the learning rate returns to
    ``base_lrs``; both libraries divide by 0.
    """

    def __init__(
        self,
        optimizer: HasParamGroups,
        factor: float = 1.0 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
        verbose: bool | str = False,
    ) -> None:
        _curves.check_constant(factor, total_iters)
        self.factor = float(factor)
        self.total_iters = int(total_iters)
        super().__init__(optimizer, last_epoch, verbose)

    def _factor(self, t):
        return _curves.constant_factor(t, self.factor, self.total_iters)


class LinearLR(FactorLR):
    """Multiply the learning rate by a factor that changes linearly.

    At epoch t::

        share = min(t, total_iters) / total_iters
        lr(t) = initial_lr * (start_factor + (end_factor - start_factor) * share)

    Args:
      optimizer, last_epoch, verbose: See `LRScheduler`.
      start_factor: Factor at epoch 0, a number in (0, 1], default 1/3.
      end_factor: Factor from epoch `total_iters` on, a number in [0, 1], default 1.
      total_iters: Epochs from `start_factor` to `end_factor`, an int >= 0, default 5.

    Raises:
      TypeError, ValueError: If an argument has the wrong type or is out of range.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> optimizer = ao.Adamax(jnp.zeros(3), lr=1.0)
      >>> scheduler = ao.lr_scheduler.LinearLR(optimizer, 0.5, total_iters=2)
      >>> for _ in range(3):
      ...     print(*scheduler.get_last_lr())
      ...     scheduler.step()
      0.5
      0.75
      1.0

    Differences: With ``total_iters=0`` the factor is `end_factor` from the start; in
    both libraries it stays at `start_factor`.
    """

    _stays_on_resume = True

    def __init__(
        self,
        optimizer: HasParamGroups,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
        verbose: bool | str = False,
    ) -> None:
        _curves.check_linear(start_factor, end_factor, total_iters)
        self.start_factor = float(start_factor)
        self.end_factor = float(end_factor)
        self.total_iters = int(total_iters)
        super().__init__(optimizer, last_epoch, verbose)

    def _factor(self, t):
        return _curves.linear_factor(
            t, self.start_factor, self.end_factor, self.total_iters
        )


class PolynomialLR(FactorLR):
    """Decay the learning rate polynomially to 0 at epoch `total_iters`.

    At epoch t::

        lr(t) = initial_lr * (1 - min(t, total_iters) / total_iters)^power

    Args:
      optimizer, last_epoch, verbose: See `LRScheduler`.
      total_iters: Epoch from which the learning rate is 0, an int >= 1, default 5.
      power: Exponent, a number >= 0, default 1.

    Raises:
      TypeError, ValueError: If an argument has the wrong type or is out of range.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> optimizer = ao.Adamax(jnp.zeros(3), lr=1.0)
      >>> scheduler = ao.lr_scheduler.PolynomialLR(optimizer, total_iters=4)
      >>> for _ in range(3):
      ...     print(*scheduler.get_last_lr())
      ...     scheduler.step()
      1.0
      0.75
      0.5

    Differences: MindSpore refuses an int `power`; PyTorch accepts a negative one.
    """

    _stays_on_resume = True

    def __init__(
        self,
        optimizer: HasParamGroups,
        total_iters: int = 5,
        power: float = 1.0,
        last_epoch: int = -1,
        verbose: bool | str = False,
    ) -> None:
        _curves.check_polynomial(total_iters, power)
        self.total_iters = int(total_iters)
        self.power = float(power)
        super().__init__(optimizer, last_epoch, verbose)

    def _factor(self, t):
        return _curves.polynomial_factor(t, self.total_iters, self.power)
