"""The base class: reads and sets ``lr`` in the optimizer's groups."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from adamax_optax._checks import as_float, check_int, check_real

T = TypeVar("T")
Group = dict[str, Any]

# Entries of PyTorch's state dicts that this package does not need.
_PYTORCH_ONLY = frozenset(
    "_step_count _is_initial _get_lr_called_within_step verbose default_min_lr "
    "mode_worse cycle_momentum use_beta1 base_momentums max_momentums".split()
)


class HasParamGroups(Protocol):
    """All that a scheduler reads and writes of an optimizer."""

    @property
    def param_groups(self) -> list[Group]: ...


def param_groups(optimizer: Any) -> list[Group]:
    """Return the optimizer's groups; raise if it has none."""
    groups = getattr(optimizer, "param_groups", None)
    if not groups or not all(isinstance(g, dict) and "lr" in g for g in groups):
        raise TypeError(
            "optimizer must have param_groups, a list of dicts with an 'lr' each, like "
            f"adamax_optax.Adamax; got {type(optimizer).__name__}. For an Optax "
            "transformation, use a schedule from adamax_optax.schedules instead"
        )
    return groups


def group_lrs(optimizer: HasParamGroups) -> list[float]:
    """Return the groups' current learning rates."""
    return [as_float("lr", group["lr"]) for group in optimizer.param_groups]


@contextlib.contextmanager
def all_or_nothing(scheduler: "LRScheduler", groups: list[Group]) -> Iterator[None]:
    """Restore the scheduler and the groups if the block raises."""
    attributes = dict(scheduler.__dict__)
    entries = [dict(group) for group in groups]
    try:
        yield
    except BaseException:
        scheduler.__dict__ = attributes
        for group, before in zip(groups, entries, strict=True):
            group.clear()
            group.update(before)
        raise


def per_group(name: str, value: T | Sequence[T], groups: list[Group]) -> list[T]:
    """Return `value` as a list with one entry per group."""
    if not isinstance(value, (list, tuple)):
        return [value] * len(groups)  # type: ignore[list-item]
    if len(value) != len(groups):
        raise ValueError(
            f"{name} must be one value or a list of {len(groups)}, one for each group "
            f"in optimizer.param_groups; got {len(value)}: {value!r}"
        )
    return list(value)


def extended(name: str, values: list[T], groups: int) -> list[T]:
    """Return a per-group list that covers the group after the first `groups`."""
    if len(values) > groups:
        return values
    if any(value != values[0] for value in values):
        raise ValueError(
            f"{name} has different values for the first {groups} groups, so a group "
            f"added later needs its own: append it to scheduler.{name}; got {values!r}"
        )
    return [*values, values[0]]


def initial_lr(group: Group) -> float:
    """Return the group's ``initial_lr``, set to its current ``lr`` if missing."""
    lr = as_float("lr", group["lr"])
    return as_float("initial_lr", group.setdefault("initial_lr", lr))


def as_epoch(epoch: Any) -> int | float | None:
    """Return `epoch` as a Python number, as an int if it is whole."""
    if epoch is None:
        return None
    check_real("epoch", epoch, 0.0, wrong_type=ValueError)
    epoch = as_float("epoch", epoch)
    return int(epoch) if epoch.is_integer() else epoch


def _copied(value: Any) -> Any:
    """Copy a container, so that a saved state does not follow the scheduler."""
    return value.copy() if isinstance(value, (list, dict)) else value


class LRScheduler:
    r"""Set the learning rates of an optimizer's groups, epoch by epoch.

    A subclass defines ``get_lr()``, which returns one learning rate per group for epoch
    ``self.last_epoch``. It can read ``self.base_lrs`` (the groups' ``initial_lr``) and
    the current learning rates, from ``self.optimizer.param_groups`` (as in PyTorch) or
    ``self._last_lr`` (as in MindSpore). If it also defines ``_get_closed_form_lr()``,
    `step(epoch)` calls that instead.

    The constructor takes the first step, to epoch 0, and stores each group's learning
    rate as its ``initial_lr`` unless the group has one. Learning rates may be numbers
    or one-element arrays; they are written back as Python floats. If a constructor, a
    step or a load raises, the groups and the scheduler are unchanged.

    Several schedulers on one optimizer are chained as in PyTorch: step one after the
    other, and each changes the learning rate that it finds.

    A group added to the optimizer later joins at the next step: its learning rate then
    becomes its ``initial_lr``, and all later changes apply to it. A per-group argument
    given as one value, or as a list of equal values, applies to it too; for a list of
    different values the step raises and asks for one more entry.

    Args:
      optimizer: Any object with ``param_groups``, a list of dicts with an ``"lr"``.
      last_epoch: Last finished epoch, an int >= -1; -1 (default) starts from the
        beginning. Any other value resumes at ``last_epoch + 1``: every group must have
        an ``"initial_lr"``, and its learning rate is taken as that of the resumed
        epoch. (`StepLR`, `MultiStepLR` and `ConstantLR` still make a change that falls
        on this epoch, like PyTorch's.) `load_state_dict` is safer.

    Raises:
      TypeError: If `optimizer` has no ``param_groups``.
      ValueError: If `last_epoch` is not an int or is below -1.
      KeyError: If `last_epoch` is not -1 and a group has no ``"initial_lr"``.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> class Halved(ao.lr_scheduler.LRScheduler):
      ...     def get_lr(self):
      ...         if self.last_epoch == 0:
      ...             return self._last_lr
      ...         return [lr / 2 for lr in self._last_lr]
      >>> optimizer = ao.Adamax(jnp.zeros(3), lr=0.08)
      >>> scheduler = Halved(optimizer)
      >>> for _ in range(3):
      ...     scheduler.step()
      ...     print(scheduler.get_last_lr())
      [0.04]
      [0.02]
      [0.01]

    Differences: MindSpore keeps learning rates in float32 tensors; here they are Python
    floats. `get_last_lr` returns what this scheduler set, as in PyTorch and in
    MindSpore's documentation; MindSpore's code also follows other schedulers. PyTorch
    warns about a step before the optimizer's and about `step(epoch)`; MindSpore and
    this package do not. MindSpore ignores a group added later; some of PyTorch's
    classes ignore it, others raise. For a `last_epoch` that is not an int, this package
    raises `ValueError`, as MindSpore documents; MindSpore's code raises `TypeError`.
    When MindSpore resumes at a `last_epoch`, every class makes that epoch's change.
    """

    base_lrs: list[float]
    last_epoch: Any
    optimizer: HasParamGroups
    _last_lr: list[float]
    # True during the constructor's first step.
    _is_initial = False

    def __init__(self, optimizer: HasParamGroups, last_epoch: int = -1) -> None:
        groups = param_groups(optimizer)
        check_int("last_epoch", last_epoch, -1, wrong_type=ValueError)
        for i, group in enumerate(groups):
            if last_epoch != -1 and "initial_lr" not in group:
                raise KeyError(
                    f"param_groups[{i}] has no 'initial_lr', which last_epoch="
                    f"{last_epoch} needs: load the optimizer's saved state first, or "
                    "start from the beginning with last_epoch=-1"
                )
        with all_or_nothing(self, groups):
            self.optimizer = optimizer
            self.base_lrs = [initial_lr(group) for group in groups]
            self.last_epoch = int(last_epoch)
            self._initial_step()

    def get_lr(self) -> list[float]:
        """Return each group's learning rate at ``self.last_epoch``."""
        raise NotImplementedError(f"{type(self).__name__} must define get_lr()")

    def get_last_lr(self) -> list[float]:
        """Return the learning rates that this scheduler set last, one per group."""
        return list(self._last_lr)

    def step(self, epoch: Any = None) -> None:
        """Set the learning rates for the next epoch, or for `epoch`.

        Args:
          epoch: A number >= 0. The learning rates come from the closed form if the
            class has one: from ``base_lrs`` alone, regardless of other schedulers.
            ``None`` (default) changes the current learning rates to the next epoch's.

        Raises:
          ValueError: If `epoch` is not a finite number >= 0.
        """
        self._update_lr(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return all attributes except the optimizer, in PyTorch's layout.

        Save the optimizer's state as well: it holds the current learning rates.
        """
        return {k: _copied(v) for k, v in self.__dict__.items() if k != "optimizer"}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the attributes from `state_dict`; the optimizer is not changed.

        Args:
          state_dict: A dict from `state_dict`, of this class or of PyTorch's.

        Raises:
          ValueError: If an entry is missing, or the number of groups differs.
        """
        missing = [key for key in self.state_dict() if key not in state_dict]
        if missing:
            raise ValueError(
                f"state_dict must be the saved state of a {type(self).__name__}; got "
                f"one with {sorted(state_dict)}, which lacks {missing}"
            )
        groups = len(self.optimizer.param_groups)
        for name in ("base_lrs", "_last_lr"):
            lrs = state_dict.get(name)
            if lrs is not None and len(lrs) != groups:
                raise ValueError(
                    f"state_dict[{name!r}] must have {groups} entries, one for each "
                    f"group in optimizer.param_groups; got {lrs!r}"
                )
        self.__dict__.update(
            (key, _copied(value))
            for key, value in state_dict.items()
            if key != "optimizer" and key not in _PYTORCH_ONLY
        )

    def _initial_step(self) -> None:
        self._is_initial = True
        try:
            self.step()
        finally:
            del self._is_initial

    def _rewind(self) -> None:
        """Undo the constructor's step; `SequentialLR` repeats it at the right time."""
        self.last_epoch -= 1

    def _update_lr(self, epoch: Any = None) -> None:
        with all_or_nothing(self, self.optimizer.param_groups):
            self._join_new_groups()
            # MindSpore's subclasses read the current learning rates here.
            self._last_lr = group_lrs(self.optimizer)
            self._last_lr = self._set_lrs(self._next_lrs(as_epoch(epoch)))

    def _next_lrs(self, epoch: Any) -> list[Any]:
        """Set ``last_epoch`` and return that epoch's learning rates."""
        if epoch is None:
            self.last_epoch += 1
            return self.get_lr()
        self.last_epoch = epoch
        return getattr(self, "_get_closed_form_lr", self.get_lr)()

    def _set_lrs(self, values: list[Any]) -> list[float]:
        groups = self.optimizer.param_groups
        lrs = [as_float("lr", value) for value in values]
        if len(lrs) != len(groups):
            raise ValueError(
                f"{type(self).__name__}.get_lr() must return {len(groups)} learning "
                f"rates, one for each group in optimizer.param_groups; got {lrs!r}"
            )
        for group, lr in zip(groups, lrs, strict=True):
            group["lr"] = lr
        return lrs

    def _join_new_groups(self) -> None:
        for group in self.optimizer.param_groups[len(self.base_lrs) :]:
            self._join(group)

    def _join(self, group: Group) -> None:
        """Include a group that was added after the scheduler was made."""
        self.base_lrs = [*self.base_lrs, initial_lr(group)]
