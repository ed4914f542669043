"""The class `Adamax`, with the interface of MindSpore's and PyTorch's."""

import copy
import itertools
import operator
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamax_optax._checks import check_flag
from adamax_optax._dtypes import compute_dtype
from adamax_optax._sharding import place_beside
from adamax_optax.compat import (
    _gradients,
    _hyperparameters,
    _moments,
    _parameters,
    _state_dict,
)
from adamax_optax.compat._layout import Layout, are_groups, arrange, check_group
from adamax_optax.compat._plan import on_cpu
from adamax_optax.compat._step import Outdated, Program, at_once, program_of


def _outside_trace(method: Any) -> Any:
    """Let a method make concrete arrays even while its caller is traced.

    A signal handler that raises may leave a context open, so it is entered only there.
    """

    @wraps(method)
    def outside(*args: Any) -> Any:
        if not isinstance(jax.device_put(0), jax.core.Tracer):
            return method(*args)
        with jax.ensure_compile_time_eval():
            return method(*args)

    return outside


class Adamax:
    """Adamax with the interface and the results of MindSpore's and PyTorch's classes.

    It holds parameters and state, so a training loop can be ported line by line from
    `mindspore.experimental.optim.Adamax` or `torch.optim.Adamax`. `adamax_optax.adamax`
    does the arithmetic and documents the equations. See ``docs/porting.md`` for a guide
    and every difference from both libraries.

    Args:
      params: A tree of arrays; an `nnx.Module`, whose `nnx.Param` are optimized, or a
        tree of `nnx.Variable`, both updated in place; or a list of groups. A group is
        a dict with `"params"` (any of the above) and its own hyperparameters; unknown
        keys are kept. With the key `"state_dtype"`, a group stores its state in 4 or 2
        bytes per parameter, as in `adamax_optax.adamax`. With ``"lazy_rows": True``,
        rows without gradient stay as they are, as in `adamax_optax.lazy_rows`.
      lr: Learning rate, at least 0: a number or an array of one element.
      betas: Decay rates of the mean and of the infinity norm, each in [0, 1).
      eps: Added to every |g| inside the maximum, at least 0.
      weight_decay: Coefficient of the coupled L2 penalty, at least 0.
      maximize: Whether to ascend. The gradient is negated before the decay is added.
      donate: Whether a step overwrites the old parameters, as in PyTorch and
        MindSpore, instead of allocating new memory. This halves the peak memory of the
        parameters and is faster for large ones. Each step then deletes the arrays that
        were parameters before it, including those passed here: keep copies.
      foreach, capturable, differentiable, fused: Accepted because PyTorch has them.
        The first two are ignored; the others must be `False` or `None`.

    Attributes:
      defaults: The hyperparameters of groups that do not set their own.

    Raises:
      ValueError: If a hyperparameter is out of range or of the wrong kind, if there
        are no parameters, or if one is in two groups. A call that raises, here and in
        every method, changes nothing.

    Example:
      >>> import adamax_optax as ao, jax, jax.numpy as jnp
      >>> params = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.0)}
      >>> optimizer = ao.Adamax(params, lr=0.1)
      >>> loss_fn = lambda p: jnp.sum((p["w"] - 3.0) ** 2) + p["b"] ** 2
      >>> grad_fn = jax.jit(jax.grad(loss_fn))
      >>> for _ in range(400):
      ...     params = optimizer(grad_fn(params))
      >>> print(f"{loss_fn(params):.4f}")
      0.0000
      >>> optimizer.param_groups[0]["lr"] = 0.01
      >>> optimizer
      Adamax (
      Parameter Group 0
          betas: (0.9, 0.999)
          eps: 1e-08
          lr: 0.01
          maximize: False
          weight_decay: 0.0
      )
    """

    # Set by `_install`, all together, and not pickled.
    _hyper: tuple[Any, Any]  # the hyperparameters of the last step, and their arrays
    _kinds: list[tuple[Any, bool, bool]]  # of each group, what the step is compiled for
    _layout: Layout
    _mask: tuple[Any, Any]  # which parameters step, as numbers and as an array
    _place: Any  # the sharding of arrays that are not a parameter's
    _program: Program
    _published: Any  # the state whose parameters are in the groups
    _state: Any  # the `Packed` moments, and the parameters that are not in place

    def __init__(
        self,
        params: Any,
        lr: jax.typing.ArrayLike = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        donate: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        _check_pytorch_options(foreach, capturable, differentiable, fused)
        check_flag("donate", donate)
        self.defaults: dict[str, Any] = dict(
            lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize
        )
        # Groups are checked in their own precision.
        _hyperparameters.check(self.defaults, np.float64, look=True)
        self._donate = bool(donate)
        params, named = _parameters.listed(params)
        # Whether parameters and gradients are sequences with one entry per group.
        grouped = are_groups(params)
        groups = list(map(dict, params)) if grouped else [{"params": params, **named}]
        self._start(groups, grouped)
        if not self._layout.paths and not grouped:
            raise ValueError(
                f"params must hold at least one parameter, got {params!r}."
            )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups, a list of dicts.

        Each has `"params"`, `"lr"`, `"betas"`, `"eps"`, `"weight_decay"`, `"maximize"`.
        Assigning to an entry takes effect on the next step, without recompilation
        (except for the first nonzero weight decay). `"params"` holds the current
        parameters. Setting `"state_dtype"` or `"lazy_rows"` converts the moments at the
        next step. Groups may be removed from the list, and dicts added to it.
        """
        self._publish()
        return self._groups

    @param_groups.setter
    def param_groups(self, groups: Sequence[dict[str, Any]]) -> None:
        self._groups = list(groups)

    @property
    def parameters(self) -> Any:
        """The current parameters, as they were passed; with groups, a list of trees."""
        self._publish()
        trees = [group["params"] for group in self._groups]
        return trees if self._layout.grouped else trees[0]

    def __call__(self, gradients: Any = None, module: Any = None) -> Any:
        """Take one step; the same as `step`."""
        return self.step(gradients, module)

    def step(self, gradients: Any = None, module: Any = None) -> Any:
        """Take one step.

        Args:
          gradients: A tree with the structure of the parameters (with groups: a
            sequence of one tree per group), or a flat sequence of arrays in the order
            of the parameters. A parameter whose gradient is `None` keeps its value, its
            moments and its step count.
          module: If the groups hold parts of an `nnx.Module` and `gradients` are those
            of the whole module: that module.

        Returns:
          The new parameters, in the structure given to the constructor. NNX modules and
          variables are updated in place; the caller's arrays stay valid unless the
          optimizer was made with ``donate=True``.

        Raises:
          ValueError: If the gradients do not fit the parameters, naming the first that
            does not, or if a hyperparameter in `param_groups` is out of range.
          RuntimeError: If a signal handler calls it in the middle of a step.
        """
        with self._lock:
            layout = self._refreshed()
            self._refuse_inside_step()
            try:
                self._busy = True
                table = self._table(partial(self._check_gradients, gradients, module))
                numbers, leaves = layout.matcher.match(gradients, module)
                if leaves:
                    self._take(numbers, leaves, table)
            finally:
                self._busy = False
            return self.parameters

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do nothing: gradients are arguments of `step` and are not accumulated."""

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add a group; its bias correction starts with its own first step.

        From then on, parameters and gradients are sequences with one entry per group.

        Args:
          param_group: A dict with `"params"` and any hyperparameters that differ from
            the defaults.

        Raises:
          ValueError: If a hyperparameter is out of range, there are no parameters, or
            one is already in another group.
        """
        with self._lock:
            layout = self._refreshed()
            check_group(param_group)
            self._refuse_inside_step()
            group = dict(param_group)
            new = arrange([*self._groups, group], self.defaults, layout, grouped=True)
            installed = self._installed(new, self._states_for(new), new.groups)
            append = partial(self._groups.append, group)
            at_once([append, partial(vars(self).update, installed)])

    def state_dict(self) -> dict[str, Any]:
        """Return the state in PyTorch's layout.

        Returns:
          ``{"state": {0: {"step": …, "exp_avg": …, "exp_inf": …}, …},
          "param_groups": [{"lr": …, …, "params": [0, …]}, …]}``. Parameters are
          numbered in order through all groups; one that has never taken a step has no
          entry under `"state"`. Of a group, `"param_names"` lists the names, such as
          ``"conv1.kernel"``, unless these are numbers, and `"steps_taken"` is the
          largest step count of all. Moments of a reduced `state_dtype` are decoded; the
          numbers `"scale"`, `"bound"` (uint16 only) and `"key"` beside them restore the
          codes bit for bit; with `"lazy_rows"`, the first two are arrays of one for
          each row. The dict is a deep copy with JAX arrays and can be pickled. As in
          PyTorch, it does not contain the parameters.
        """
        with self._lock:
            layout = self._refreshed()
            now, states = vars(self), self._states()
            if self._kinds_changed():  # save what the next step converts
                now = self._installed(layout, states, layout.groups)
                states = self._states(now)
            return _state_dict.save(layout, states, now["_program"].specs)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load moments, step counts and hyperparameters from a state dict.

        Args:
          state_dict: The result of `state_dict`, from this class or
            `torch.optim.Adamax`; its arrays may be JAX's, NumPy's or tensors. The
            parameters of a group are matched by name if both sides have names, and
            otherwise by order. One without an entry is reset, as in PyTorch.

        Raises:
          ValueError: If the number of groups or parameters or a name differs, something
            is missing, or a shape or a hyperparameter does not fit.
        """
        with self._lock:
            layout = self._refreshed()
            self._refuse_inside_step()
            groups, states = _state_dict.load(state_dict, layout, self.defaults)
            installed = self._installed(layout, states, groups)
            replacing = [
                change
                for old, new in zip(layout.groups, groups, strict=True)
                for change in (partial(old.clear), partial(old.update, new))
            ]
            at_once([*replacing, partial(vars(self).update, installed)])

    def init(self, params: Any) -> optax.OptState:
        """Return a functional state: Optax's `init`.

        `init` and `update` let an instance serve as an Optax transformation: in
        `optax.chain`, or as the `tx` of a Flax `TrainState`. They do not touch the
        instance's own parameters and state.

        Args:
          params: A tree of arrays; with several groups, a sequence of one per group.
        """
        return self._transformation(params).init(params)

    def update(
        self, updates: Any, state: optax.OptState, params: Any = None
    ) -> tuple[Any, optax.OptState]:
        """Return updates and the new state: Optax's `update`.

        Hyperparameters are read from `param_groups` when the caller is traced: under
        `jit`, later changes do not affect a compiled program.
        """
        return self._transformation(updates).update(updates, state, params)

    def __repr__(self) -> str:
        groups = [
            f"Parameter Group {i}\n"
            + "".join(f"    {k}: {group[k]}\n" for k in sorted(group) if k != "params")
            for i, group in enumerate(self.param_groups)
        ]
        return f"{type(self).__name__} (\n" + "\n".join(groups) + ")"

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            layout = self._refreshed()
            rebuilt = {"_busy", "_groups", "_lock", "_weak", *Adamax.__annotations__}
            return {
                **{k: v for k, v in vars(self).items() if k not in rebuilt},
                "groups": self._groups,
                "grouped": layout.grouped,
                "states": self._states(),
            }

    def __setstate__(self, state: dict[str, Any]) -> None:
        rest = dict(state)
        groups, grouped, states = map(rest.pop, ("groups", "grouped", "states"))
        vars(self).update(rest)
        groups = list(map(dict, groups))
        if self._donate:  # the original's steps overwrite its arrays
            for group in groups:
                group["params"] = _parameters.with_copies(group["params"])
        self._start(groups, grouped, states)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Adamax":
        state = self.__getstate__()
        for group in state["groups"]:
            _parameters.check_copied(group["params"], memo)
        other = memo[id(self)] = type(self).__new__(type(self))
        other.__setstate__(copy.deepcopy(state, memo))
        return other

    def _start(
        self,
        groups: list[dict[str, Any]],
        grouped: bool,
        states: Sequence[_moments.ParamState] | None = None,
    ) -> None:
        """Set what is not pickled; without `states`, no parameter has taken a step."""
        self._lock = threading.RLock()
        self._busy = False  # whether a step is being taken
        self._weak = False  # whether a gradient was weakly typed
        self._groups = groups
        layout = arrange(groups, self.defaults, None, grouped)
        self._install(layout, states or [None] * len(layout.paths))

    def _refreshed(self) -> Layout:
        """Return the layout, with the groups and their parameters as they are now."""
        self._publish()
        groups = self._groups
        known = self._layout.groups
        if len(known) != len(groups) or not all(map(operator.is_, known, groups)):
            # Groups were removed from `param_groups`, or put into it.
            grouped = self._layout.grouped or len(groups) != 1
            layout = arrange(groups, self.defaults, self._layout, grouped)
            self._install(layout, self._states_for(layout))
        return self._layout

    def _publish(self) -> None:
        """Put the parameters of the last step into the groups."""
        with self._lock:
            if self._published is not self._state:
                self._layout.write(self._state[1])
                self._published = self._state

    @_outside_trace
    def _states(
        self, attributes: Mapping[str, Any] | None = None
    ) -> list[_moments.ParamState]:
        """Return copies of the states of all parameters, here or in `attributes`."""
        now = vars(self) if attributes is None else attributes
        packed = _moments.Packed(*now["_state"][0])
        return _moments.unpack(packed, now["_program"].specs)

    def _states_for(self, layout: Layout) -> list[_moments.ParamState | None]:
        """Return the state of each parameter of a layout; `None` if it is new.

        As in PyTorch, a parameter keeps its state in whichever group it is.
        """
        old, states = self._layout, self._states()
        by_owner: dict[int, Any] = dict(zip(map(id, old.owned()), states, strict=True))
        rest = iter(states)
        by_group = {
            id(group): list(itertools.islice(rest, size))
            for group, size in zip(old.groups, old.sizes, strict=True)
        }
        found: list[_moments.ParamState | None] = []
        for group, own in zip(layout.groups, layout.found, strict=True):
            if id(group) in by_group:
                found += by_group[id(group)]
            else:
                found += [by_owner.get(id(x)) for x in own.owned(group["params"])]
        return found

    def _install(
        self, layout: Layout, states: Sequence[_moments.ParamState | None]
    ) -> None:
        """Switch to a layout; the state of a new parameter is `None`."""
        vars(self).update(self._installed(layout, states, layout.groups))

    @_outside_trace
    def _installed(
        self,
        layout: Layout,
        states: Sequence[_moments.ParamState | None],
        groups: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        """Return the attributes that `_install` sets, for these options of groups."""
        params = layout.read()
        kinds = list(map(_hyperparameters.kind, groups))
        specs = layout.specs(params, kinds)
        for path, spec, old in zip(layout.paths, specs, states, strict=True):
            _check_kind(path, spec.dtype, old)
        full = [
            _moments.init(params[k], spec.state_dtype, spec.lazy_rows, k)
            if state is None
            else _moments.cast(state, spec, k)
            for k, (state, spec) in enumerate(zip(states, specs, strict=True))
        ]
        packed = _moments.pack(full, specs, params)
        state = tuple(packed), tuple(itertools.compress(params, layout.in_trees))
        return {
            "_hyper": (None, None),
            "_kinds": kinds,
            "_layout": layout,
            "_mask": (None, None),
            "_place": place_beside(params),
            "_program": program_of(specs, self._donate, on_cpu(params)),
            "_published": state,
            "_state": state,
        }

    def _table(self, check: Callable[[], None]) -> tuple[jax.Array, ...]:
        """Return the hyperparameters of all groups, checked, on the device.

        If a group has another `state_dtype` than before, call `check`, which may refuse
        the step, and convert the moments.
        """
        found = _hyperparameters.fingerprint(self._layout.groups)
        if found is None or found != self._hyper[0]:
            self._layout.check()
            if self._kinds_changed():
                check()
                self._install(self._layout, self._states())
            table = _hyperparameters.pack(self._layout.groups, self._place)
            _gradients.refuse_traced(table)
            self._hyper = found, table
        return self._hyper[1]

    def _kinds_changed(self) -> bool:
        return list(map(_hyperparameters.kind, self._layout.groups)) != self._kinds

    def _check_gradients(self, gradients: Any, module: Any) -> None:
        layout = self._layout
        params = layout.read()
        numbers, leaves = layout.matcher.match(gradients, module)
        for k, leaf in zip(numbers, leaves, strict=True):
            _gradients.check(leaf, params[k], layout.paths[k])

    def _take(
        self, numbers: Sequence[int], leaves: list[Any], table: tuple[jax.Array, ...]
    ) -> None:
        """Take a step with the gradients `leaves` of the parameters `numbers`."""
        layout = self._layout
        params = layout.read()
        if np.ndarray in set(map(type, leaves)):
            # JAX would share their memory, and the caller may write to it.
            for i, k in enumerate(numbers):
                if type(leaves[i]) is np.ndarray:
                    _gradients.check(leaves[i], params[k], layout.paths[k])
                    leaves[i] = jax.device_put(leaves[i].copy())
        if self._weak:
            leaves = list(map(_parameters.strongly_typed, leaves))
        gradients, stepping = leaves, None
        if len(numbers) < len(params):
            gradients = self._filled(numbers, leaves, params)
            stepping = self._stepping(numbers)
        try:
            self._run(params, gradients, table, stepping)
        except Outdated:
            params, gradients = (
                list(map(_parameters.strongly_typed, arrays))
                for arrays in (params, gradients)
            )
            self._weak = True
            params = list(map(_parameters.placed_like, params, gradients))
            layout.place(params)
            if layout.specs(params, self._kinds) != self._program.specs:
                self._install(layout, self._states())
            if stepping is not None:
                stepping = self._stepping(numbers)
            self._run(params, gradients, self._table(lambda: None), stepping)

    def _refuse_inside_step(self) -> None:
        if self._busy:
            raise RuntimeError(
                "The optimizer is in the middle of a step, which this signal handler "
                "has interrupted. A handler may save the optimizer, but not step or "
                "load it: set a flag instead, and act on it after the step."
            )

    def _run(
        self,
        params: Sequence[Any],
        gradients: Sequence[Any],
        table: tuple[jax.Array, ...],
        stepping: jax.Array | None,
    ) -> None:
        layout, specs = self._layout, self._program.specs

        def prepare() -> None:
            """Check the arrays; in a compiled step, JAX itself compares types."""
            for path, shape, param, gradient in zip(
                layout.paths, layout.shapes, params, gradients, strict=True
            ):
                _parameters.check(param, shape, path)
                _gradients.check(gradient, param, path)
            _gradients.refuse_traced([-table[0]])
            weak = any(getattr(x, "weak_type", False) for x in (*params, *gradients))
            placed = map(_parameters.placed_like, params, gradients)
            if (
                weak
                or layout.specs(params, self._kinds) != specs
                or not all(map(operator.is_, params, placed))
            ):
                raise Outdated

        try:
            self._program.take(
                (self._state[0], params, gradients, table, stepping),
                prepare,
                (self, *layout.owners),
                ("_state", *layout.slots),
            )
        finally:
            self._publish()

    def _filled(
        self, numbers: Sequence[int], leaves: Sequence[Any], params: Sequence[Any]
    ) -> list[Any]:
        """Return a gradient for each parameter, also for those that do not step.

        All are in the dtype of the arithmetic, so that one program serves any subset.
        """
        given = dict(zip(numbers, leaves, strict=True))
        gradients = []
        for k, (param, path) in enumerate(zip(params, self._layout.paths, strict=True)):
            _parameters.check(param, self._layout.shapes[k], path)
            gradient = given.get(k, param)  # any array of this shape and place
            _gradients.check(gradient, param, path)
            gradient = jnp.asarray(gradient, compute_dtype(param.dtype))
            if getattr(param, "committed", False) and not gradient.committed:
                gradient = jax.device_put(gradient, param.sharding)
            gradients.append(gradient)
        return gradients

    def _stepping(self, numbers: Sequence[int]) -> jax.Array:
        if self._mask[0] != numbers:
            mask = self._program.mask(numbers, self._place)
            _gradients.refuse_traced([mask])
            self._mask = numbers, mask
        return self._mask[1]

    def _transformation(self, tree: Any) -> optax.GradientTransformation:
        with self._lock:
            layout = self._refreshed()
            layout.check()
            groups = []
            for group in layout.groups:
                arguments = _hyperparameters.to_functional(group)
                state_dtype, _, lazy = _hyperparameters.kind(group)
                groups += [_moments.transformation(arguments, state_dtype, lazy, tree)]
        if not layout.grouped:
            return groups[0]
        return optax.partition(dict(enumerate(groups)), list(range(len(groups))))


def _check_kind(path: Any, dtype: Any, state: _moments.ParamState | None) -> None:
    """Raise `ValueError` if a real parameter became complex, or the reverse."""
    if state is None:
        return
    before, now = _moments.is_complex(state), jnp.issubdtype(dtype, jnp.complexfloating)
    if before != now:
        raise ValueError(
            f"{_parameters.label(path)} must stay {'complex' if before else 'real'}, "
            f"like its moments, got an array of dtype {dtype}. Remove it and add it as "
            "a new group, or make a new optimizer."
        )


def _check_pytorch_options(
    foreach: Any, capturable: Any, differentiable: Any, fused: Any
) -> None:
    """Raise `ValueError` for options that would change more than the speed."""
    for name, value in (("foreach", foreach), ("capturable", capturable)):
        if value not in (None, False, True):
            raise ValueError(f"{name} must be True, False or None, got {value!r}.")
    if differentiable:
        raise ValueError(
            f"differentiable must be False, got {differentiable!r}: to differentiate "
            "through a step, use adamax_optax.adamax inside jax.grad."
        )
    if fused:
        raise ValueError(
            f"fused must be None or False, as in PyTorch's Adamax, got {fused!r}. Each "
            "step here is one compiled program."
        )
