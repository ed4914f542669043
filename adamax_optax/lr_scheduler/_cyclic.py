"""Cyclical learning rates."""

from collections.abc import Callable, Mapping
from typing import Any

from adamax_optax._checks import as_float
from adamax_optax.lr_scheduler import _curves
from adamax_optax.lr_scheduler._base import (
    Group,
    HasParamGroups,
    LRScheduler,
    all_or_nothing,
    extended,
    initial_lr,
    param_groups,
    per_group,
)
from adamax_optax.lr_scheduler._lambda import callable_state, load_callable


class CyclicLR(LRScheduler):
    r"""Move the learning rate up and down between `base_lr` and `max_lr`.

    .. math:: \eta_t = \eta_{base} + (\eta_{max} - \eta_{base}) \, h(t) \, s

    The height h rises from 0 to 1 in `step_size_up` steps, falls to 0 in
    `step_size_down` steps, and repeats. The scale s is 1 (``"triangular"``),
    :math:`2^{1 - cycle}` (``"triangular2"``), :math:`\gamma^t` (``"exp_range"``) or
    given by `scale_fn`. Cycles are numbered from 1. Step it after every batch. Not
    chainable: it overwrites the changes of other schedulers.

    Args:
      optimizer: See `LRScheduler`; its learning rates are set to `base_lr`.
      base_lr: Lower bound, a number >= 0, or a list with one per group.
      max_lr: Upper bound, a number >= 0, or a list with one per group.
      step_size_up: Steps of the rise, a number > 0, default 2000.
      step_size_down: Steps of the fall, a number >= 0, or ``None`` (default): the same
        as `step_size_up`.
      mode: ``"triangular"`` (default), ``"triangular2"`` or ``"exp_range"``; ignored if
        `scale_fn` is given.
      gamma: Base of ``"exp_range"``, a number >= 0, default 1.
      scale_fn: A function for s, or ``None`` (default).
      scale_mode: Argument of `scale_fn`: the number of the cycle for ``"cycle"``
        (default), the number of the step for anything else.
      last_epoch: See `LRScheduler`; counts steps.

    Raises:
      TypeError: If an argument has the wrong type.
      ValueError: If an argument is out of range, a list does not have one entry per
        group, or `mode` is unknown and `scale_fn` not given.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> optimizer = ao.Adamax(jnp.zeros(3), lr=0.1)
      >>> scheduler = ao.lr_scheduler.CyclicLR(optimizer, base_lr=0.01, max_lr=0.1)
      >>> lrs = []
      >>> for _ in range(5):
      ...     scheduler.step()
      ...     lrs += scheduler.get_last_lr()
      >>> print(*(f"{lr:.6g}" for lr in lrs))
      0.010045 0.01009 0.010135 0.01018 0.010225

    Differences: PyTorch also cycles beta1 between 0.8 and 0.9 unless given
    ``cycle_momentum=False``. MindSpore and this class have no such option and leave the
    betas alone; `load_state_dict` refuses a PyTorch state that has it on.
    """

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
    ) -> None:
        groups = param_groups(optimizer)
        base_lrs = per_group("base_lr", base_lr, groups)
        max_lrs = per_group("max_lr", max_lr, groups)
        for base, top in zip(base_lrs, max_lrs, strict=True):
            _curves.check_cyclic(
                base, top, step_size_up, step_size_down, mode, gamma, scale_fn
            )
        base_lrs = [as_float("base_lr", lr) for lr in base_lrs]
        self.max_lrs = [as_float("max_lr", lr) for lr in max_lrs]
        self.total_size, self.step_ratio = _curves.cycle_sizes(
            step_size_up, step_size_down
        )
        self.mode = mode
        self.gamma = float(gamma)
        self._scale_fn_custom = scale_fn
        _, self.scale_mode = self._scale(scale_mode)
        with all_or_nothing(self, groups):
            for group, lr in zip(groups, base_lrs, strict=True):
                group["lr"] = lr
            super().__init__(optimizer, last_epoch)
        # As in PyTorch, the constructor's step uses the groups' initial_lr, which an
        # earlier scheduler may have set; all later steps use base_lr.
        self.base_lrs = base_lrs

    def _scale(self, scale_mode: str) -> tuple[_curves.Scale, str]:
        return _curves.cycle_scale(
            self.mode, self.gamma, self._scale_fn_custom, scale_mode
        )

    def get_lr(self) -> list[float]:
        sizes, scale = (self.total_size, self.step_ratio), self._scale(self.scale_mode)
        return [
            _curves.cyclic(self.last_epoch, base_lr, max_lr, *sizes, scale)
            for base_lr, max_lr in zip(self.base_lrs, self.max_lrs, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return all attributes except the optimizer, in PyTorch's layout.

        If `scale_fn` is a callable object, its attributes are saved; a function is not.
        """
        fn = callable_state(self._scale_fn_custom)
        return {**super().state_dict(), "_scale_fn_custom": fn}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the attributes; see `LRScheduler.load_state_dict`."""
        if state_dict.get("cycle_momentum"):
            raise ValueError(
                "state_dict must come from a CyclicLR with cycle_momentum=False, which "
                "leaves the betas alone; got cycle_momentum=True"
            )
        fn = self._scale_fn_custom
        super().load_state_dict({**state_dict, "_scale_fn_custom": fn})
        load_callable(fn, state_dict.get("_scale_fn_custom"))

    def _join(self, group: Group) -> None:
        groups = len(self.base_lrs)
        self.max_lrs = extended("max_lrs", self.max_lrs, groups)
        self.base_lrs = extended("base_lrs", self.base_lrs, groups)
        initial_lr(group)
