"""The class `Adamax`, with the interface of MindSpore's and PyTorch's."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamax_optax._adamax import adamax
from adamax_optax._checks import check_flag
from adamax_optax.compat import (
    _buckets,
    _gradients,
    _hyperparameters,
    _moments,
    _parameters,
    _state_dict,
    _step,
)

# Not pickled: rebuilt from the parameters, or restored from the saved moments.
_REBUILT = (
    "_buckets",
    "_found",
    "_group_of",
    "_last_hyperparameters",
    "_matcher",
    "_paths",
)


class Adamax:
    """Adamax with the interface and the results of MindSpore's and PyTorch's classes.

    It takes the arguments of `mindspore.experimental.optim.Adamax` and
    `torch.optim.Adamax`, and holds parameters and state, so a training loop can be
    ported line by line. `adamax_optax.adamax` does the arithmetic and documents the
    equations. See ``docs/porting.md`` for a guide and every difference from both
    libraries.

    Args:
      params: A tree of arrays; an `nnx.Module`, whose `nnx.Param` are optimized, or a
        tree of `nnx.Variable`, both updated in place; or a list of groups. A group is
        a dict with `"params"` (any of the above) and its own hyperparameters; unknown
        keys are kept. With the key `"state_dtype"`, a group stores its state in 4 or 2
        bytes per parameter, as in `adamax_optax.adamax`.
      lr: Learning rate, at least 0: a number or an array of one element.
      betas: Decay rates of the mean and of the infinity norm, each in [0, 1).
      eps: Added to every |g| inside the maximum, at least 0.
      weight_decay: Coefficient of the coupled L2 penalty, at least 0.
      maximize: Whether to ascend. The gradient is negated before the decay is added.
      donate: Whether a step overwrites the old parameters, as in PyTorch and
        MindSpore, instead of allocating new memory. This halves the peak memory of the
        parameters and is faster for large ones. Each step then deletes the arrays that
        were parameters before it, including those first passed: keep copies.

    Attributes:
      param_groups: A list of dicts with `"params"`, `"lr"`, `"betas"`, `"eps"`,
        `"weight_decay"`, `"maximize"`. Assigning to an entry takes effect on the next
        step, without recompilation (except for the first nonzero weight decay).
        `"params"` holds the current parameters.
        Setting `"state_dtype"` converts the moments at the next step.
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
    ) -> None:
        self.defaults: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        _hyperparameters.check(self.defaults, look=True)
        check_flag("donate", donate)
        self._donate = bool(donate)
        # Whether parameters and gradients are sequences with one entry per group.
        self._grouped = _are_groups(params)
        self._start(params if self._grouped else [{"params": params}])

    def _start(self, groups: Sequence[Mapping[str, Any]]) -> None:
        self.param_groups: list[dict[str, Any]] = []
        self._found: list[_parameters.Parameters] = []
        self._buckets: list[_buckets.Bucket] = []
        # Fingerprint of the last step's hyperparameters, and their packed table.
        self._last_hyperparameters: tuple[Any, Any] | None = None
        for group in groups:
            self._add(group)
        self._number()

    @property
    def parameters(self) -> Any:
        """The current parameters, as they were passed; with groups, a list of trees."""
        trees = [group["params"] for group in self.param_groups]
        return trees if self._grouped else trees[0]

    def __call__(self, gradients: Any = None) -> Any:
        """Take one step; the same as `step`."""
        return self.step(gradients)

    def step(self, gradients: Any = None) -> Any:
        """Take one step.

        Args:
          gradients: A tree with the structure of the parameters (with groups: a
            sequence of one tree per group), or a flat sequence of arrays in the order
            of the parameters. A parameter whose gradient is `None` keeps its value, its
            moments and its step count.

        Returns:
          The new parameters, in the structure given to the constructor. NNX modules and
          variables are updated in place; the caller's arrays stay valid unless the
          optimizer was made with ``donate=True``.

        Raises:
          ValueError: If the gradients do not fit the parameters, naming the first that
            does not, or if a hyperparameter in `param_groups` is out of range.
        """
        hyper = self._packed()
        params = self._read()
        numbers, leaves = self._matcher.match(gradients)
        checked = self._matcher.checked(numbers, leaves, params)
        buckets, stepping = _buckets.divide(self._kept(params), numbers, params)
        new, stepped = _step.step(
            [bucket for bucket, steps in zip(buckets, stepping, strict=True) if steps],
            params,
            dict(zip(numbers, checked, strict=True)),
            hyper,
            donate=self._donate,
        )
        for k, param in new.items():
            params[k] = param
        after = iter(stepped)
        self._buckets = [
            next(after) if steps else bucket
            for bucket, steps in zip(buckets, stepping, strict=True)
        ]
        self._write(params)
        return self.parameters

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
        self._add(param_group)
        self._grouped = True
        self._number()

    def state_dict(self) -> dict[str, Any]:
        """Return the state in PyTorch's layout.

        Returns:
          ``{"state": {0: {"step": …, "exp_avg": …, "exp_inf": …}, …},
          "param_groups": [{"lr": …, …, "params": [0, …]}, …]}``. Parameters are
          numbered in order through all groups; one that has never taken a step has no
          entry under `"state"`. Moments of a reduced `state_dtype` are decoded; the
          numbers `"scale"`, `"bound"` (uint16 only) and `"key"` beside them restore the
          codes bit for bit. The dict is a deep copy with JAX arrays and can be pickled.
          As in PyTorch, it does not contain the parameters.
        """
        params = self._read()
        states = self._scattered(self._kept(params), params)
        return _state_dict.save(self.param_groups, self._sizes(), states, params)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load moments, step counts and hyperparameters from a state dict.

        Args:
          state_dict: The result of `state_dict`, from this class or
            `torch.optim.Adamax`; its arrays may be JAX's, NumPy's or tensors.
            Parameters are matched by order, not by name.

        Raises:
          ValueError: If the number of groups or parameters differs, something is
            missing, or a shape or a hyperparameter does not fit.
        """
        # A dict without `state_dtype` leaves this optimizer's unchanged.
        missing = [
            self.defaults | {k: v for k, v in group.items() if k == "state_dtype"}
            for group in self.param_groups
        ]
        options = _state_dict.load_groups(state_dict, self._sizes(), missing)
        params = self._read()
        states = _state_dict.load_moments(
            state_dict, params, self._paths, [options[i] for i in self._group_of]
        )
        buckets = _buckets.gather(dict(enumerate(states)), params, self._group_of)
        for group, loaded in zip(self.param_groups, options, strict=True):
            own = group["params"]
            group.clear()
            group.update(loaded, params=own)
        self._buckets = buckets

    def init(self, params: Any) -> optax.OptState:
        """Return a functional state: Optax's `init`.

        `init` and `update` let an instance serve as an Optax transformation: in
        `optax.chain`, or as the `tx` of a Flax `TrainState`. They do not touch the
        instance's own parameters and state.

        Args:
          params: A tree of arrays; with several groups, a sequence of one per group.
        """
        return _moments.component_wise(self._transformation(), params).init(params)

    def update(
        self, updates: Any, state: optax.OptState, params: Any = None
    ) -> tuple[Any, optax.OptState]:
        """Return updates and the new state: Optax's `update`.

        Hyperparameters are read from `param_groups` when the caller is traced: under
        `jit`, later changes do not affect a compiled program.
        """
        tx = _moments.component_wise(self._transformation(), updates)
        return tx.update(updates, state, params)

    def __repr__(self) -> str:
        groups = [
            f"Parameter Group {i}\n"
            + "".join(f"    {k}: {group[k]}\n" for k in sorted(group) if k != "params")
            for i, group in enumerate(self.param_groups)
        ]
        return f"{type(self).__name__} (\n" + "\n".join(groups) + ")"

    def __getstate__(self) -> dict[str, Any]:
        # JAX's tree structures cannot be pickled.
        kept = {k: v for k, v in self.__dict__.items() if k not in _REBUILT}
        return {**kept, "saved": self._scattered(self._buckets, self._read())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({k: v for k, v in state.items() if k != "saved"})
        self._start(self.param_groups)
        if self._donate:  # the original's steps overwrite its arrays
            self._write([jnp.copy(array) for array in self._read()])
        self._buckets = _buckets.gather(
            dict(enumerate(state["saved"])), self._read(), self._group_of
        )

    def _add(self, param_group: Mapping[str, Any]) -> None:
        if not isinstance(param_group, Mapping) or "params" not in param_group:
            raise ValueError(
                f"A parameter group must be a dict with 'params', got {param_group!r}."
            )
        group = {**self.defaults, **param_group}
        _hyperparameters.check(group, look=True)
        found = _parameters.find(group["params"])
        self._refuse_shared(found, group["params"])
        params = found.read(group["params"])
        states = _moments.init(params, group.get("state_dtype"))
        first, number = sum(self._sizes()), len(self.param_groups)
        self._buckets += _buckets.gather(
            dict(enumerate(states, first)),
            [None] * first + params,
            [number] * (first + len(params)),
        )
        self.param_groups.append(group)
        self._found.append(found)

    def _refuse_shared(self, found: _parameters.Parameters, params: Any) -> None:
        paths = dict(zip(map(id, found.owned(params)), found.paths, strict=True))
        groups = zip(self._found, self.param_groups, strict=True)
        for i, (other, group) in enumerate(groups):
            for owned in other.owned(group["params"]):
                if id(owned) in paths:
                    raise ValueError(
                        "A parameter may be in one group only, but "
                        f"{_parameters.label(paths[id(owned)])} of group "
                        f"{len(self._found)} is already in group {i}."
                    )

    def _number(self) -> None:
        """Number the parameters through all groups."""
        self._group_of = [i for i, found in enumerate(self._found) for _ in found.paths]
        self._paths = [
            (f"[{i}]", *path) if self._grouped else path
            for i, found in enumerate(self._found)
            for path in found.paths
        ]
        self._matcher = _gradients.Matcher(self._paths)

    def _sizes(self) -> list[int]:
        return [len(found.paths) for found in self._found]

    def _read(self) -> list[Any]:
        return [
            array
            for found, group in zip(self._found, self.param_groups, strict=True)
            for array in found.read(group["params"])
        ]

    def _write(self, arrays: list[Any]) -> None:
        rest = iter(arrays)
        for found, group in zip(self._found, self.param_groups, strict=True):
            own = list(itertools.islice(rest, len(found.paths)))
            group["params"] = found.write(group["params"], own)

    def _kept(self, params: Sequence[Any]) -> list[_buckets.Bucket]:
        """Return the buckets, cast to the `state_dtype` of their groups."""
        return [
            _buckets.cast(bucket, params, self.param_groups[bucket.group])
            for bucket in self._buckets
        ]

    def _scattered(
        self, buckets: Sequence[_buckets.Bucket], params: Sequence[Any]
    ) -> list[_moments.ParamState]:
        """Return copies of the states of all parameters."""
        states: dict[int, _moments.ParamState] = {}
        for bucket in buckets:
            states |= _buckets.scatter(bucket, params)
        return [states[k] for k in range(len(params))]

    def _packed(self) -> _hyperparameters.Packed:
        """Return the hyperparameters of all groups, checked."""
        found = _hyperparameters.fingerprint(self.param_groups)
        last = self._last_hyperparameters
        if found is not None and last is not None and found == last[0]:
            return last[1]
        # The table stays on the device as long as nothing changes.
        packed = _hyperparameters.pack(self._hyperparameters())
        self._last_hyperparameters = found, packed
        return packed

    def _hyperparameters(self) -> list[dict[str, Any]]:
        """Return the functional arguments of each group."""
        for group in self.param_groups:
            _hyperparameters.check(group)
        return list(map(_hyperparameters.to_functional, self.param_groups))

    def _transformation(self) -> optax.GradientTransformation:
        groups = [
            adamax(**arguments, state_dtype=group.get("state_dtype"))
            for arguments, group in zip(
                self._hyperparameters(), self.param_groups, strict=True
            )
        ]
        if not self._grouped:
            return groups[0]
        return optax.partition(dict(enumerate(groups)), list(range(len(groups))))


def _are_groups(params: Any) -> bool:
    return (
        isinstance(params, list | tuple)
        and len(params) > 0
        and all(isinstance(entry, Mapping) and "params" in entry for entry in params)
    )
