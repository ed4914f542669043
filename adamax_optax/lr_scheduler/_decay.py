"""Decay by gamma: every step_size epochs, at milestones, in every epoch."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from adamax_optax import _curves
from adamax_optax.lr_scheduler._base import HasParamGroups
from adamax_optax.lr_scheduler._factor import DecayLR


class StepLR(DecayLR):
    r"""Multiply the learning rate by `gamma` every `step_size` epochs.

    .. math:: \eta_t = \eta_0 \, \gamma^{\lfloor t / \text{step\_size} \rfloor}

    Args:
        optimizer: Anything with ``param_groups``, a list of dicts with an ``"lr"``.
        step_size: Epochs between two decays, an int >= 1.
        gamma: Factor of a decay, a number >= 0, default 0.1.
        last_epoch: See `LRScheduler`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Example:
        >>> import adamax_optax as ao
        >>> import jax.numpy as jnp
        >>> optimizer = ao.Adamax({"w": jnp.zeros(3)}, lr=0.05)
        >>> scheduler = ao.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
        >>> lrs = []
        >>> for _ in range(6):
        ...     lrs += scheduler.get_last_lr()
        ...     scheduler.step()
        >>> print(*(f"{lr:.3g}" for lr in lrs))
        0.05 0.05 0.005 0.005 0.0005 0.0005

    Differences: MindSpore's text says that `gamma` is 0.5 by default; its signature,
    PyTorch and this class say 0.1. MindSpore refuses an int `gamma`.
    """

    def __init__(
        self,
        optimizer: HasParamGroups,
        step_size: int,
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        _curves.check_step(step_size, gamma)
        self.step_size = int(step_size)
        self.gamma = float(gamma)
        super().__init__(optimizer, last_epoch)

    def _decays(self, t: Any) -> Any:
        return _curves.step_decays(t, self.step_size)


class MultiStepLR(DecayLR):
    r"""Multiply the learning rate by `gamma` at each of the milestones.

    .. math:: \eta_t = \eta_0 \, \gamma^{\#\{m \in \text{milestones}: m \le t\}}

    Args:
        optimizer: Anything with ``param_groups``, a list of dicts with an ``"lr"``.
        milestones: The epochs, ints >= 0 in any order. One that stands there twice
            counts twice.
        gamma: Factor of a decay, a number >= 0, default 0.1.
        last_epoch: See `LRScheduler`.

    Raises:
        TypeError: If an argument, or one of the milestones, has the wrong type.
        ValueError: If an argument is out of range.

    Example:
        >>> import adamax_optax as ao
        >>> import jax.numpy as jnp
        >>> optimizer = ao.Adamax({"w": jnp.zeros(3)}, lr=0.05)
        >>> scheduler = ao.lr_scheduler.MultiStepLR(optimizer, milestones=[2, 4])
        >>> lrs = []
        >>> for _ in range(6):
        ...     lrs += scheduler.get_last_lr()
        ...     scheduler.step()
        >>> print(*(f"{lr:.3g}" for lr in lrs))
        0.05 0.05 0.005 0.005 0.0005 0.0005

    Differences: MindSpore takes the milestones as a list only, and its
    ``step(epoch)`` fails (it looks for a ``step_size``); here any sequence does, and
    ``step(epoch)`` is PyTorch's.
    """

    def __init__(
        self,
        optimizer: HasParamGroups,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        _curves.check_milestones(milestones)
        _curves.check_gamma(gamma)
        self.milestones = Counter(int(milestone) for milestone in milestones)
        self.gamma = float(gamma)
        super().__init__(optimizer, last_epoch)

    def _decays(self, t: Any) -> Any:
        return _curves.milestones_passed(t, list(self.milestones.elements()))


class ExponentialLR(DecayLR):
    r"""Multiply the learning rate by `gamma` in every epoch.

    .. math:: \eta_t = \eta_0 \, \gamma^t

    Args:
        optimizer: Anything with ``param_groups``, a list of dicts with an ``"lr"``.
        gamma: Factor of a decay, a number >= 0.
        last_epoch: See `LRScheduler`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Example:
        >>> import adamax_optax as ao
        >>> import jax.numpy as jnp
        >>> optimizer = ao.Adamax({"w": jnp.zeros(3)}, lr=0.01)
        >>> scheduler = ao.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
        >>> lrs = []
        >>> for _ in range(4):
        ...     lrs += scheduler.get_last_lr()
        ...     scheduler.step()
        >>> print(*(f"{lr:.3g}" for lr in lrs))
        0.01 0.005 0.0025 0.00125

    Differences: MindSpore refuses an int `gamma`, and decays once when it resumes at a
    given `last_epoch`; PyTorch and this class leave the learning rate there.
    """

    _stays_on_resume = True

    def __init__(
        self, optimizer: HasParamGroups, gamma: float, last_epoch: int = -1
    ) -> None:
        _curves.check_gamma(gamma)
        self.gamma = float(gamma)
        super().__init__(optimizer, last_epoch)

    def _decays(self, t: Any) -> Any:
        return t
