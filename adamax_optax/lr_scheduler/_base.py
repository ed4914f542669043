"""The base class: reads and sets ``lr`` in the optimizer's groups."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from adamax_optax._checks import as_float, check_int, check_real

T = TypeVar("T")
Group = dict[str, Any]

# Entries of PyTorch's states that have no counterpart here.
_PYTORCH_ONLY = frozenset(
    {
        "_step_count",
        "_is_initial",
        "_get_lr_called_within_step",
        "verbose",
        "default_min_lr",
        "mode_worse",
        "cycle_momentum",
        "use_beta1",
        "base_momentums",
        "max_momentums",
    }
)


class HasParamGroups(Protocol):
    """What a scheduler needs of an optimizer, and all that it touches."""

    @property
    def param_groups(self) -> list[Group]: ...


def param_groups(optimizer: Any) -> list[Group]:
    """Return the optimizer's groups, or raise if it has none."""
    groups = getattr(optimizer, "param_groups", None)
    if not groups or not all(isinstance(g, dict) and "lr" in g for g in groups):
        raise TypeError(
            "optimizer must have param_groups, a list of dicts with an 'lr' each, as "
            f"adamax_optax.Adamax has; got {type(optimizer).__name__}. Optax "
            "transformations take a schedule from adamax_optax.schedules instead"
        )
    return groups


def group_lrs(optimizer: HasParamGroups) -> list[float]:
    """Return the groups' current learning rates."""
    return [as_float("lr", group["lr"]) for group in optimizer.param_groups]


@contextlib.contextmanager
def all_or_nothing(scheduler: "LRScheduler", groups: list[Group]) -> Iterator[None]:
    """Put the scheduler and the groups back as they were when the block raises."""
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
    """Return a per-group list with an entry for the group after the first `groups`."""
    if len(values) > groups:
        return values
    if any(value != values[0] for value in values):
        raise ValueError(
            f"{name} has different values for the {groups} groups, so the group added "
            f"later needs its own: append it to scheduler.{name}; got {values!r}"
        )
    return [*values, values[0]]


def initial_lr(group: Group) -> float:
    """Return the group's initial learning rate, which is set to the current if new."""
    lr = as_float("lr", group["lr"])
    return as_float("initial_lr", group.setdefault("initial_lr", lr))


def as_epoch(epoch: Any) -> int | float | None:
    """Return a given epoch as a Python number, an int if it is whole."""
    if epoch is None:
        return None
    check_real("epoch", epoch, 0.0, wrong_type=ValueError)
    epoch = as_float("epoch", epoch)
    return int(epoch) if epoch.is_integer() else epoch


def _copied(value: Any) -> Any:
    """Copy a container, so that a saved state does not change with the scheduler."""
    return value.copy() if isinstance(value, (list, dict)) else value


class LRScheduler:
    r"""Set the learning rates of an optimizer's groups, epoch by epoch.

    A subclass defines ``get_lr()``, which returns one learning rate per group for
    ``self.last_epoch``. It may read ``self.base_lrs`` (the groups' ``initial_lr``) and
    the current learning rates, which stand in ``self.optimizer.param_groups`` (as in
    PyTorch) and in ``self._last_lr`` (as in MindSpore). If it also defines
    ``_get_closed_form_lr()``, `step(epoch)` calls that instead.

    The constructor makes the first step, to epoch 0, and keeps the groups' learning
    rates as their ``initial_lr`` (one that a group already has stays). Learning rates
    are read as numbers or one-element arrays and written as Python floats. When a
    constructor, a step or a load raises, the groups and the scheduler are as before.

    Several schedulers on one optimizer are chained as in PyTorch: step them one after
    the other, and each changes the learning rate that it finds.

    A group added to the optimizer later joins at the next step: its learning rate at
    that time becomes its ``initial_lr``, and it takes part in every change from there
    on. Per-group arguments given as one value hold for it too; given as a list with
    differing values, the step raises and asks for one more entry.

    Args:
        optimizer: Anything with ``param_groups``, a list of dicts with an ``"lr"``.
        last_epoch: Number of the last finished epoch, an int >= -1, default -1: start
            anew. Any other value resumes at ``last_epoch + 1`` and asks for an
            ``"initial_lr"`` in every group; the learning rates in the groups are then
            taken to be those of that epoch already. (`StepLR`, `MultiStepLR` and
            `ConstantLR` make the change that falls on that epoch, as PyTorch's do.)
            `load_state_dict` is the surer way.

    Raises:
        TypeError: If `optimizer` has no ``param_groups``.
        ValueError: If `last_epoch` is not an int or is below -1.
        KeyError: If `last_epoch` is not -1 and a group has no ``"initial_lr"``.

    Example:
        >>> import adamax_optax as ao
        >>> import jax.numpy as jnp
        >>> class Halved(ao.lr_scheduler.LRScheduler):
        ...     def get_lr(self):
        ...         if self.last_epoch == 0:
        ...             return self._last_lr
        ...         return [lr / 2 for lr in self._last_lr]
        >>> optimizer = ao.Adamax({"w": jnp.zeros(3)}, lr=0.08)
        >>> scheduler = Halved(optimizer)
        >>> for _ in range(3):
        ...     scheduler.step()
        ...     print(scheduler.get_last_lr())
        [0.04]
        [0.02]
        [0.01]

    Differences: MindSpore keeps the learning rate in float32 tensors, here it is a
    Python float. MindSpore's `get_last_lr` follows later changes by other schedulers;
    by its documentation, and in PyTorch and here, it returns what this scheduler set.
    PyTorch warns when the scheduler is stepped before the optimizer or with an epoch;
    here, as in MindSpore, nothing warns. A group that is added later is left out by
    MindSpore, and by some of PyTorch's classes; others of them raise. MindSpore's
    documentation promises `ValueError` for a `last_epoch` that is not an int, as here;
    its code raises `TypeError`.
    """

    base_lrs: list[float]
    last_epoch: Any
    optimizer: HasParamGroups
    _last_lr: list[float]
    # True while the constructor makes the first step.
    _is_initial = False

    def __init__(self, optimizer: HasParamGroups, last_epoch: int = -1) -> None:
        groups = param_groups(optimizer)
        check_int("last_epoch", last_epoch, -1, wrong_type=ValueError)
        for i, group in enumerate(groups):
            if last_epoch != -1 and "initial_lr" not in group:
                raise KeyError(
                    f"param_groups[{i}] has no 'initial_lr', which last_epoch="
                    f"{last_epoch} needs to resume from: load the optimizer's saved "
                    "state first, or start anew with last_epoch=-1"
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
        """Go on to the next epoch, or to `epoch`, and set the learning rates.

        Args:
            epoch: Epoch to go to, a number >= 0. The learning rate then comes from the
                closed form where there is one: from ``base_lrs`` alone, whatever other
                schedulers have done. Default ``None``: the next one, changing the
                learning rate that the groups have.
        """
        self._update_lr(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return all attributes but the optimizer, in PyTorch's layout.

        Save the optimizer's state with it: the learning rates are in there.
        """
        return {k: _copied(v) for k, v in self.__dict__.items() if k != "optimizer"}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take the attributes from `state_dict`; the optimizer is left alone.

        Args:
            state_dict: A dict from `state_dict`, this class's or PyTorch's.

        Raises:
            ValueError: If an entry is missing, or the number of groups differs.
        """
        missing = [key for key in self.state_dict() if key not in state_dict]
        if missing:
            raise ValueError(
                f"state_dict must be the saved state of a {type(self).__name__}; it "
                f"has {sorted(state_dict)} and lacks {missing}"
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
        """Take back the constructor's step: `SequentialLR` makes it in its time."""
        self.last_epoch -= 1

    def _update_lr(self, epoch: Any = None) -> None:
        with all_or_nothing(self, self.optimizer.param_groups):
            self._join_new_groups()
            # MindSpore's subclasses read the current learning rates here.
            self._last_lr = group_lrs(self.optimizer)
            self._last_lr = self._set_lrs(self._next_lrs(as_epoch(epoch)))

    def _next_lrs(self, epoch: Any) -> list[Any]:
        """Move ``last_epoch`` and return the learning rates there."""
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
        """Take up a group that was added to the optimizer after the construction."""
        self.base_lrs = [*self.base_lrs, initial_lr(group)]
