"""A factor until total_iters (constant), or on the way to it (linear, polynomial)."""

from typing import Any

from adamax_optax import _curves
from adamax_optax.lr_scheduler._base import HasParamGroups
from adamax_optax.lr_scheduler._factor import FactorLR


class ConstantLR(FactorLR):
    r"""Multiply the learning rate by `factor` until epoch `total_iters`.

    .. math:: \eta_t = \eta_0 \cdot \begin{cases}
        \text{factor} & t < \text{total\_iters} \\ 1 & \text{otherwise} \end{cases}

    Args:
        optimizer: Anything with ``param_groups``, a list of dicts with an ``"lr"``.
        factor: A number in [0, 1], default 1/3.
        total_iters: Epoch from which on the learning rate is restored, an int >= 0,
            default 5.
        last_epoch: See `LRScheduler`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Example:
        >>> import adamax_optax as ao
        >>> import jax.numpy as jnp
        >>> optimizer = ao.Adamax({"w": jnp.zeros(3)}, lr=0.05)
        >>> scheduler = ao.lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=4)
        >>> lrs = []
        >>> for _ in range(6):
        ...     lrs += scheduler.get_last_lr()
        ...     scheduler.step()
        >>> print(*(f"{lr:.3g}" for lr in lrs))
        0.025 0.025 0.025 0.025 0.05 0.05

    Differences: With ``total_iters=0`` the factor never applies; in both libraries it
    applies for ever, against MindSpore's "when the last_epoch reach total_iters,
    restore the learning rate". With ``factor=0`` the learning rate is restored to
    ``base_lrs``; both libraries divide by 0 there.
    """

    def __init__(
        self,
        optimizer: HasParamGroups,
        factor: float = 1.0 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        _curves.check_constant(factor, total_iters)
        self.factor = float(factor)
        self.total_iters = int(total_iters)
        super().__init__(optimizer, last_epoch)

    def _factor(self, t: Any) -> Any:
        return _curves.constant_factor(t, self.factor, self.total_iters)


class LinearLR(FactorLR):
    r"""Move the learning rate's factor from `start_factor` to `end_factor`.

    .. math:: \eta_t = \eta_0 \left(\text{start} + (\text{end} - \text{start})
        \frac{\min(t, \text{total\_iters})}{\text{total\_iters}}\right)

    Args:
        optimizer: Anything with ``param_groups``, a list of dicts with an ``"lr"``.
        start_factor: Factor at epoch 0, a number in (0, 1], default 1/3.
        end_factor: Factor from epoch `total_iters` on, a number in [0, 1], default 1.
        total_iters: Epochs from the one to the other, an int >= 0, default 5.
        last_epoch: See `LRScheduler`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Example:
        >>> import adamax_optax as ao
        >>> import jax.numpy as jnp
        >>> optimizer = ao.Adamax({"w": jnp.zeros(3)}, lr=0.05)
        >>> scheduler = ao.lr_scheduler.LinearLR(
        ...     optimizer, start_factor=0.5, total_iters=4
        ... )
        >>> lrs = []
        >>> for _ in range(6):
        ...     lrs += scheduler.get_last_lr()
        ...     scheduler.step()
        >>> print(*(f"{lr:.6g}" for lr in lrs))
        0.025 0.03125 0.0375 0.04375 0.05 0.05

    Differences: With ``total_iters=0`` the factor is `end_factor` from the start; in
    both libraries it stays at `start_factor`. Resuming at a given `last_epoch`,
    MindSpore makes one step; PyTorch and this class leave the learning rate there.
    """

    _stays_on_resume = True

    def __init__(
        self,
        optimizer: HasParamGroups,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        _curves.check_linear(start_factor, end_factor, total_iters)
        self.start_factor = float(start_factor)
        self.end_factor = float(end_factor)
        self.total_iters = int(total_iters)
        super().__init__(optimizer, last_epoch)

    def _factor(self, t: Any) -> Any:
        return _curves.linear_factor(
            t, self.start_factor, self.end_factor, self.total_iters
        )


class PolynomialLR(FactorLR):
    r"""Decay the learning rate to 0 at `total_iters` along a power of the rest.

    .. math:: \eta_t = \eta_0 \left(1 - \frac{\min(t, \text{total\_iters})}
        {\text{total\_iters}}\right)^{\text{power}}

    Args:
        optimizer: Anything with ``param_groups``, a list of dicts with an ``"lr"``.
        total_iters: Epoch from which on the learning rate is 0, an int >= 1, default 5.
        power: Exponent, a number >= 0, default 1.
        last_epoch: See `LRScheduler`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Example:
        >>> import adamax_optax as ao
        >>> import jax.numpy as jnp
        >>> optimizer = ao.Adamax({"w": jnp.zeros(3)}, lr=0.01)
        >>> scheduler = ao.lr_scheduler.PolynomialLR(optimizer)
        >>> lrs = []
        >>> for _ in range(7):
        ...     lrs += scheduler.get_last_lr()
        ...     scheduler.step()
        >>> print(*(f"{lr:.3g}" for lr in lrs))
        0.01 0.008 0.006 0.004 0.002 0 0

    Differences: MindSpore refuses an int `power`; PyTorch takes a negative one.
    Resuming at a given `last_epoch`, MindSpore makes one step; PyTorch and this class
    leave the learning rate there.
    """

    _stays_on_resume = True

    def __init__(
        self,
        optimizer: HasParamGroups,
        total_iters: int = 5,
        power: float = 1.0,
        last_epoch: int = -1,
    ) -> None:
        _curves.check_polynomial(total_iters, power)
        self.total_iters = int(total_iters)
        self.power = float(power)
        super().__init__(optimizer, last_epoch)

    def _factor(self, t: Any) -> Any:
        return _curves.polynomial_factor(t, self.total_iters, self.power)
