"""The base class: reads and sets ``lr`` in the optimizer's groups."""

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Protocol, TypeVar

from adamax_optax._checks import as_float, check_int, check_real

T = TypeVar("T")
Group = dict[str, Any]

# Attributes that are not part of the state.
_NOT_SAVED = frozenset(("optimizer", "_verbose", "_made"))
# Entries of the state that are not attributes: what the scheduler writes to the groups.
_WRITTEN = ("_group_lrs", "_group_beta1s")
# Entries of PyTorch's state dicts that this package does not need.
_PYTORCH_ONLY = frozenset(
    "_step_count _is_initial _get_lr_called_within_step verbose default_min_lr "
    "mode_worse use_beta1".split()
)


class HasParamGroups(Protocol):
    """The part of an optimizer that a scheduler reads and writes."""

    @property
    def param_groups(self) -> list[Group]: ...


def param_groups(optimizer: Any) -> list[Group]:
    """Return the optimizer's groups; raise if it has none."""
    groups = getattr(optimizer, "param_groups", None)
    if not groups or not all(isinstance(g, dict) and "lr" in g for g in groups):
        raise TypeError(
            "optimizer must have param_groups, a list of dicts with an 'lr' each, like "
            f"adamax_optax.Adamax; got {type(optimizer).__name__}. For an Optax "
            "transformation, use a schedule from adamax_optax.schedules instead."
        )
    return groups


def group_lrs(optimizer: HasParamGroups) -> list[float]:
    """Return the groups' current learning rates."""
    return [as_float("lr", group["lr"]) for group in optimizer.param_groups]


def per_group(name: str, value: T | Sequence[T], groups: list[Group]) -> list[T]:
    """Return `value` as a list with one entry per group."""
    if not isinstance(value, (list, tuple)):
        return [value] * len(groups)  # type: ignore[list-item]
    if len(value) != len(groups):
        raise ValueError(
            f"{name} must be one value or a list of {len(groups)}, one for each group "
            f"in optimizer.param_groups; got {len(value)}: {value!r}."
        )
    return list(value)


def numbers_per_group(
    name: str, value: Any, groups: list[Group], high: float = math.inf
) -> list[float]:
    """Return `value` as a list with one float in [0, high) per group."""
    values = per_group(name, value, groups)
    for number in values:
        check_real(name, number, 0.0, high, without_high=True)
    return [as_float(name, number) for number in values]


def extended(name: str, values: list[T], groups: int) -> list[T]:
    """Return a scheduler's per-group list with an entry for each of `groups`."""
    check_removed(name, values, groups)
    late = groups - len(values)
    if late and any(value != values[0] for value in values):
        raise ValueError(
            f"{name} has different values for the first {len(values)} groups, so a "
            f"group added later needs its own: append it to scheduler.{name}; got "
            f"{values!r}."
        )
    return values + values[:1] * late


def check_removed(name: str, values: list[Any], groups: int) -> None:
    """Raise if a per-group list has more entries than there are groups."""
    if len(values) > groups:
        raise ValueError(
            f"scheduler.{name} must have at most {groups} entries, one for each group "
            f"in optimizer.param_groups; got {values!r}. If you removed a group, "
            f"delete its entry from scheduler.{name}."
        )


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


def as_verbose(verbose: Any) -> bool:
    """Return whether to print, from the argument of PyTorch up to 2.6."""
    if verbose not in (True, False, "deprecated"):
        raise ValueError(
            "verbose must be False, or True to print each new learning rate, got "
            f"{verbose!r}."
        )
    return verbose != "deprecated" and bool(verbose)


def copied(value: Any, *, plain: bool = False) -> Any:
    """Copy containers and arrays; with `plain`, arrays of shape () become numbers."""
    if isinstance(value, dict):
        new = value.copy()
        for key, entry in value.items():  # a Counter's `update` would count
            new[key] = copied(entry, plain=plain)
        return new
    if type(value) in (list, tuple):
        return type(value)(copied(entry, plain=plain) for entry in value)
    if hasattr(value, "ndim"):
        return value.tolist() if plain and value.ndim == 0 else copy.copy(value)
    return value


def loaded(name: str, value: Any, current: Any) -> Any:
    """Return a saved value in the types of the current one, which it replaces.

    Saving may have made numbers and lists arrays. Raises `ValueError` if `value` is of
    another kind than `current`; `name` is for the message.
    """
    if isinstance(current, list) and isinstance(value, Mapping):
        # Flax's to_state_dict turns a list into a dict with the keys "0", "1", ...
        value = [value.get(str(i)) for i in range(len(value))]
    if isinstance(current, list) and hasattr(value, "tolist"):
        value = value.tolist()
    value = copied(value, plain=True)
    for kind in (int | float, str, list, dict):
        if isinstance(current, kind) and not isinstance(value, kind):
            raise ValueError(
                f"state_dict[{name!r}] must be like {current!r}, got {value!r}."
            )
    return value


def check_entries(name: str, entries: Any, groups: int) -> None:
    """Raise unless a saved per-group list fits `groups` groups."""
    if not (
        isinstance(entries, list)
        and 0 < len(entries) <= groups
        and all(isinstance(entry, (int, float)) or callable(entry) for entry in entries)
    ):
        raise ValueError(
            f"state_dict[{name!r}] must have 1 to {groups} entries, one for each group "
            f"in optimizer.param_groups; got {entries!r}."
        )


class LRScheduler:
    """Set the learning rates of an optimizer's groups, epoch by epoch.

    A subclass defines ``get_lr()``, which returns one learning rate per group for epoch
    ``self.last_epoch``. It can read ``self.base_lrs`` (the groups' ``initial_lr``) and,
    as the current learning rates, ``self.optimizer.param_groups`` (PyTorch) or
    ``self._last_lr`` (MindSpore). If it also defines ``_get_closed_form_lr()``,
    `step(epoch)` calls that instead.

    The constructor takes the first step, to epoch 0, and stores each group's learning
    rate as its ``initial_lr`` unless the group has one. Learning rates may be numbers
    or one-element arrays; they are written back as Python floats. If a constructor, a
    step or a load raises, the groups and the scheduler are unchanged.

    Several schedulers on one optimizer are chained as in PyTorch: step one after the
    other, and each changes the learning rate that it finds.

    A group added to the optimizer later joins at the next step, from its own learning
    rate. A per-group argument given as one value, or as a list of equal values, applies
    to it too; for different values the step raises and asks for one more entry. After a
    group was removed, the step asks to remove its entries.

    Args:
      optimizer: Any object with ``param_groups``, a list of dicts with an ``"lr"``.
      last_epoch: Last finished epoch, an int >= -1; -1 (default) starts from the
        beginning. Any other value resumes at ``last_epoch + 1``: every group must have
        an ``"initial_lr"``, and its learning rate is taken as that of the resumed
        epoch. (`StepLR`, `MultiStepLR` and `ConstantLR` still make a change that falls
        on this epoch, like PyTorch's.) `load_state_dict` is safer.
      verbose: Whether to print every learning rate that is set, as in PyTorch up to
        2.6. ``"deprecated"`` means ``False``.

    Raises:
      TypeError: If `optimizer` has no ``param_groups``.
      ValueError: If `last_epoch` is not an int or is below -1, or `verbose` is unknown.
      KeyError: If `last_epoch` is not -1 and a group has no ``"initial_lr"``.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> class Halved(ao.lr_scheduler.LRScheduler):
      ...     def get_lr(self):
      ...         return [lr / 2**self.last_epoch for lr in self.base_lrs]
      >>> optimizer = ao.Adamax(jnp.zeros(3), lr=0.08)
      >>> scheduler = Halved(optimizer)
      >>> for _ in range(3):
      ...     scheduler.step()
      ...     print(scheduler.get_last_lr())
      [0.04]
      [0.02]
      [0.01]

    Differences: MindSpore keeps learning rates in float32 tensors. `get_last_lr`
    returns what this scheduler set, as in PyTorch and in MindSpore's documentation;
    MindSpore's code also follows other schedulers. Only PyTorch warns about a step
    before the optimizer's and about `step(epoch)`. MindSpore ignores a group added
    later; some of PyTorch's classes ignore it, others raise. A `last_epoch` that is not
    an int raises `ValueError`, as MindSpore documents; its code raises `TypeError`.
    When MindSpore resumes at a `last_epoch`, every class makes that epoch's change.
    """

    base_lrs: list[float]
    last_epoch: Any
    optimizer: HasParamGroups
    _last_lr: list[float]
    # True during the constructor's first step.
    _is_initial = False
    _verbose = False
    # The groups' learning rates and betas, as the constructor left them.
    _made: Sequence[Group] = ()
    # Names of the attributes that have an entry for each group, besides `base_lrs`.
    _lists: tuple[str, ...] = ()

    def __init__(
        self,
        optimizer: HasParamGroups,
        last_epoch: int = -1,
        verbose: bool | str = False,
    ) -> None:
        groups = param_groups(optimizer)
        check_int("last_epoch", last_epoch, -1, wrong_type=ValueError)
        for i, group in enumerate(groups):
            if last_epoch != -1 and "initial_lr" not in group:
                raise KeyError(
                    f"param_groups[{i}] has no 'initial_lr', which last_epoch="
                    f"{last_epoch} needs: load the optimizer's saved state first, or "
                    "start from the beginning with last_epoch=-1."
                )
        self._verbose = as_verbose(verbose)
        self.optimizer = optimizer
        with self._all_or_nothing():
            self.base_lrs = [initial_lr(group) for group in groups]
            self.last_epoch = int(last_epoch)
            self._initial_step()

    def get_lr(self) -> list[float]:
        """Return each group's learning rate at ``self.last_epoch``."""
        raise NotImplementedError(f"{type(self).__name__} must define get_lr().")

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

        Save the optimizer's state as well: it holds the current learning rates. They
        are also here, under ``"_group_lrs"``. A function that was passed in is not
        saved, but the attributes of a callable object are.

        Returns:
          A dict of plain numbers, strings, lists and dicts, which JSON and MessagePack
          keep exactly, and of any attributes that a subclass adds.
        """
        return {**copied(self._attributes()), **self._written()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the attributes from `state_dict`.

        The optimizer is not changed, except where the constructor has just changed it:
        a learning rate that has not been set since is restored too. So an optimizer may
        be loaded before or after its scheduler is made (see ``docs/porting.md`` for two
        exceptions).

        Args:
          state_dict: A dict from `state_dict`, of this class or of PyTorch's. Its
            numbers may have become arrays, and its lists Flax's dicts. Groups that
            were added after its last step join at the next.

        Raises:
          ValueError: If an entry is missing or of the wrong kind, or the state has more
            groups than the optimizer. Nothing is changed then.
        """
        own, groups = self._attributes(), self.optimizer.param_groups
        given = state_dict if isinstance(state_dict, Mapping) else {}
        missing = [key for key in own if key not in given]
        if missing:
            raise self._not_saved(state_dict, missing)
        own.update((name, []) for name in _WRITTEN)
        state = {
            key: loaded(key, value, own.get(key))
            for key, value in given.items()
            if key not in _NOT_SAVED | _PYTORCH_ONLY
        }
        # PyTorch's states do not have the groups' learning rates.
        state.setdefault("_group_lrs", state["_last_lr"])
        for name in ("base_lrs", "_last_lr", *_WRITTEN, *self._lists):
            check_entries(name, state.get(name, self._last_lr), len(groups))
        written = {name: state.pop(name, []) for name in _WRITTEN}
        with self._all_or_nothing():
            self.__dict__.update(state)
            self._mend(written)

    def _attributes(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in _NOT_SAVED}

    def _states(self, state_dict: Any, name: str) -> list[Any]:
        """Return the list of states called `name` in a state dict."""
        if not isinstance(state_dict, Mapping) or name not in state_dict:
            raise self._not_saved(state_dict, [name])
        return loaded(name, state_dict[name], [])

    def _not_saved(self, state_dict: Any, missing: list[str]) -> ValueError:
        """Return the error for a state dict of something else."""
        got = list(state_dict) if isinstance(state_dict, Mapping) else state_dict
        return ValueError(
            f"state_dict must be the saved state of a {type(self).__name__}; got one "
            f"with {got!r}, which lacks {missing}."
        )

    def _parts(self) -> list[Any]:
        """Return the objects whose attributes are the state."""
        return [self]

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Restore the scheduler and the groups if the block raises."""
        changed: list[MutableMapping[str, Any]] = [*self.optimizer.param_groups]
        changed += [vars(part) for part in self._parts()]
        before = [dict(mapping) for mapping in changed]
        try:
            yield
        except BaseException:
            for mapping, entries in zip(changed, before, strict=True):
                mapping.update(entries)
                for key in mapping.keys() - entries.keys():
                    del mapping[key]
            raise

    def _written(self) -> dict[str, list[float]]:
        """Return the current values of the entries that the scheduler writes."""
        return {"_group_lrs": group_lrs(self.optimizer)}

    def _mend(self, written: dict[str, list[float]]) -> None:
        """Undo what the constructor did to an optimizer that had been loaded before.

        The constructor wrote objects of its own to the groups: where one is still
        there, nobody has set the value since.
        """
        lrs = zip(
            self.optimizer.param_groups, self._made, written["_group_lrs"], strict=False
        )
        for group, made, lr in lrs:
            if group["lr"] is made["lr"]:
                group["lr"] = lr

    def _initial_step(self) -> None:
        self._is_initial = True
        self.step()
        del self._is_initial
        self._note_made()

    def _note_made(self) -> None:
        """Remember what the constructor wrote, for `_mend`; parameters are not kept."""
        self._made = [
            {"lr": group["lr"], "betas": group.get("betas")}
            for group in self.optimizer.param_groups
        ]

    def _rewind(self) -> None:
        """Go back to before epoch 0; `SequentialLR` starts it at the right time."""
        self.last_epoch = -1

    def _update_lr(self, epoch: Any) -> None:
        with self._all_or_nothing():
            self._join_new_groups()
            # MindSpore's subclasses read the current learning rates here.
            self._last_lr = group_lrs(self.optimizer)
            self._last_lr = self._set_lrs(self._next_lrs(as_epoch(epoch)))
        if self._verbose:
            for i, lr in enumerate(self._last_lr):
                print(f"Adjusting learning rate of group {i} to {lr:.4e}.")

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
                f"rates, one for each group in optimizer.param_groups; got {lrs!r}."
            )
        for group, lr in zip(groups, lrs, strict=True):
            group["lr"] = lr
        return lrs

    def _join_new_groups(self) -> None:
        """Include the groups that were added to the optimizer since the last step."""
        groups = self.optimizer.param_groups
        for name in self._lists:
            setattr(self, name, extended(name, getattr(self, name), len(groups)))
        check_removed("base_lrs", self.base_lrs, len(groups))
        late = groups[len(self.base_lrs) :]
        self.base_lrs = [*self.base_lrs, *map(initial_lr, late)]
