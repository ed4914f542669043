"""One step of all parameters as one compiled program that is never half done.

A step overwrites the moments. After the old arrays are deleted and before the new ones
are stored, a signal handler or an exception would find neither. So a compiled step is
called, and its results are stored, within one call of a C function, in which Python
runs no signal handlers. A step that is not compiled yet runs Python, and gets copies to
overwrite.
"""

import collections
import functools
import gc
import itertools
import operator
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamax_optax._dtypes import compute_dtype
from adamax_optax._sharding import place_beside
from adamax_optax.compat import _hyperparameters, _moments
from adamax_optax.compat._plan import Spec, pieces_of
from adamax_optax.moments import map_moments

# Consumes an iterator in C.
_exhaust = collections.deque[Any](maxlen=0).extend
# From Python 3.12 on, no garbage is collected, and so no Python code runs, inside C.
_COLLECTS_ANYWHERE = sys.version_info < (3, 12)
# XLA uses vectors of 256 bits even where the CPU has 512. With 512, reduced state has
# the same bits in less time (docs/speed.md). For float32 it would gain nothing.
_CPU_OPTIONS = {"xla_cpu_prefer_vector_width": 512}


class Outdated(Exception):
    """The arrays do not fit the specs of a program."""


class Overwritten:
    """An argument of a compiled step, whose arrays the step may overwrite.

    JAX flattens the arguments of a call once, in C++, to look for a compiled program.
    Only if there is none does it fall back to Python, which flattens them again. The
    second time, `flatten` returns copies of the arrays instead.

    Args:
      arrays: A tuple of arrays and tuples.
      prepare: Called before copies are made, if the step is not yet compiled.
    """

    def __init__(self, arrays: Any, prepare: Callable[[], None]) -> None:
        self._arrays = arrays
        self._prepare = prepare
        self._seen = False
        self._copies: Any = None

    @property
    def were_copied(self) -> bool:
        """Whether a step has overwritten copies instead."""
        return self._copies is not None

    def flatten(self) -> tuple[Any, None]:
        if not self._seen:
            self._seen = True
            return self._arrays, None
        return self.copies(), None

    def copies(self) -> Any:
        if self._copies is None:
            self._prepare()
            treedef: Any
            leaves, treedef = jax.tree.flatten(self._arrays)
            self._copies = treedef.unflatten(list(map(jnp.copy, leaves)))
        return self._copies


# Inside the program, an `Overwritten` is a tuple.
jax.tree_util.register_pytree_node(
    Overwritten, Overwritten.flatten, lambda _, arrays: arrays
)


class Program:
    """The compiled step of parameters with given specs.

    Args:
      specs: The specs of all parameters.
      donate: Whether a step may overwrite the parameters too.
      on_cpu: Whether the parameters are on CPUs.
    """

    def __init__(self, specs: tuple[Spec, ...], donate: bool, on_cpu: bool) -> None:
        self.specs = specs
        self._donate = donate
        self._reduced = any(spec.state_dtype is not None for spec in specs)
        self._options = _CPU_OPTIONS if on_cpu and self._reduced else None
        self._trees = [k for k, spec in enumerate(specs) if spec.in_tree]
        self._in_place = [k for k, spec in enumerate(specs) if not spec.in_tree]
        self._pieces = pieces_of(specs)
        self.renew()

    def renew(self) -> None:
        """Forget what is compiled.

        After an interrupted first call, JAX would always call the program in Python.
        """

        # A new function each time, since JAX caches compiled code by function.
        def step(overwritten, params, gradients, table, stepping):
            if isinstance(overwritten, Overwritten):  # jax.disable_jit
                overwritten = overwritten.copies()
            packed, *rest = overwritten
            params = rest[0] if rest else params
            return self._step(packed, params, gradients, table, stepping)

        compiled = functools.partial(
            jax.jit, out_shardings=self._shardings(), compiler_options=self._options
        )
        self._overwriting = compiled(step, donate_argnums=0)
        # `jax_debug_nans` looks at the results in Python, and runs the step again to
        # find the place where a NaN arose.
        self._keeping = compiled(step)

    def take(
        self,
        arguments: tuple[Any, Any, Any, Any, Any],
        prepare: Callable[[], None],
        owners: Sequence[Any],
        names: Sequence[str],
    ) -> None:
        """Take a step and store its results.

        Args:
          arguments: The `Packed` states, as a tuple; all parameters; a gradient of
            each; the hyperparameters of each group, from `_hyperparameters.pack`; and
            which parameters take a step (bool, shape (parameters,)), `None` if all do.
          prepare: Called before a step that is not compiled yet.
          owners: The objects that get the results: the first a tuple of the new states
            and of a tuple of the new arrays of parameters in trees; each other one the
            new array of a parameter that is not.
          names: The name of the attribute of each.
        """
        packed, params, gradients, table, stepping = arguments
        # A parameter without gradient keeps its array, and is passed as its gradient.
        donating = self._donate and stepping is None
        own = params
        if donating:
            own = _distinct(params, gradients)
            overwritten = Overwritten((packed, own), prepare)
            rest = None, gradients, table, stepping
        else:
            overwritten = Overwritten((packed,), prepare)
            rest = params, gradients, table, stepping
        config: Any = jax.config  # its attributes are not typed
        debugging = config.jax_debug_nans or config.jax_debug_infs
        call = self._keeping if debugging else self._overwriting
        results = itertools.starmap(call, [(overwritten, *rest)])
        before = getattr(owners[0], names[0])
        try:
            _store(itertools.chain.from_iterable(results), owners, names)
        except BaseException as error:
            # `prepare` raises the two before anything is compiled.
            refused = type(error) in (ValueError, Outdated)
            if not refused and getattr(owners[0], names[0]) is before:
                self.renew()
            raise
        if donating and overwritten.were_copied:
            for array in own:
                if isinstance(array, jax.Array):
                    array.delete()

    def _shardings(self) -> Any:
        """Return where the results of a step are; `None` if all are on one device."""
        if all(spec.sharding is None for spec in self.specs):
            return None
        beside = place_beside(self.specs)
        first = [self.specs[piece.numbers[0]] for piece in self._pieces]
        moments = tuple(map(_moments.shardings, first))
        coding = (beside,) * 3 if self._reduced else None
        trees = tuple(self.specs[k].sharding for k in self._trees)
        in_place = (self.specs[k].sharding for k in self._in_place)
        return (((moments, beside, coding), trees), *in_place)

    def mask(self, numbers: Collection[int], place: Any) -> jax.Array:
        """Return `stepping` for the parameters `numbers`, on the devices of `place`."""
        order = [k for piece in self._pieces for k in piece.numbers]
        return jax.device_put(np.isin(order, list(numbers)), place)

    def _step(self, packed, params, gradients, table, stepping):
        moments, counts, coding = packed
        rows = counts, None if coding is None else _moments.Coding(*coding), stepping
        new: list[Any] = [None] * len(self.specs)
        stepped, codings = [], []
        for piece, arrays in zip(self._pieces, moments, strict=True):
            spec = self.specs[piece.numbers[0]]
            own = slice(piece.start, piece.start + len(piece.numbers))
            groups = [self.specs[k].group for k in piece.numbers]
            if piece.joined and len(set(groups)) == 1:
                groups = groups[:1]  # a number costs less than one for each element
            arrays, numbers, moved = _step_piece(
                piece.kind(),
                spec.state_dtype,
                spec.decays,
                spec.lazy_rows,
                arrays,
                [table[group] for group in groups],
                jax.tree.map(operator.itemgetter(own), rows),
                [params[k] for k in piece.numbers],
                [gradients[k] for k in piece.numbers],
            )
            stepped.append(arrays)
            codings.append(numbers)
            for k, param in zip(piece.numbers, moved, strict=True):
                new[k] = param
        after = optax.safe_increment(counts)
        packed = (
            tuple(stepped),
            after if stepping is None else jnp.where(stepping, after, counts),
            None
            if coding is None
            else tuple(map(jnp.concatenate, zip(*codings, strict=True))),
        )
        trees = tuple(new[k] for k in self._trees)
        # JAX lets each output overwrite the first donated array of its shape. Moments
        # come before parameters in inputs and outputs: otherwise one would overwrite
        # the other, and XLA would have to copy.
        return ((packed, trees), *(new[k] for k in self._in_place))


def at_once(calls: Iterable[Callable[[], Any]]) -> None:
    """Call functions written in C, all within one call of a C function."""
    _consume(map(operator.call, calls))


def _store(results, owners, names):
    """Set an attribute of each owner to the next result, all at once."""
    _consume(map(object.__setattr__, owners, names, results))


def _consume(iterator):
    if not (_COLLECTS_ANYWHERE and gc.isenabled()):
        _exhaust(iterator)
        return
    try:
        gc.disable()
        _exhaust(iterator)
    finally:
        gc.enable()


def _distinct(params, gradients):
    """Return the parameters, copied where a donated array is used twice."""
    if len({*map(id, params), *map(id, gradients)}) == len(params) + len(gradients):
        return params
    used, distinct = set(map(id, gradients)), []
    for param in params:
        distinct.append(jnp.copy(param) if id(param) in used else param)
        used.add(id(param))
    return distinct


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _step_piece(
    piece, state_dtype, decays, lazy, moments, hyperparameters, rows, params, gradients
):
    """Return the moments of a piece, its coding and its parameters after a step."""
    dtype = compute_dtype(params[0].dtype)
    gradient = piece.share([jnp.asarray(gradient, dtype) for gradient in gradients])
    param = piece.share(params)
    step = functools.partial(_step_one, state_dtype, decays, lazy)
    if len(params) == 1:
        row = _Row(hyperparameters[0], *jax.tree.map(operator.itemgetter(0), rows))
        moments, coding, new = step(moments, row, param, gradient)
        return moments, jax.tree.map(lambda x: x[None], coding), [new]
    in_common = len(hyperparameters) == 1
    row = _Row(None if in_common else jnp.stack(hyperparameters), *rows)
    if piece.joined:  # and so not reduced: it has no use for its coding
        row = jax.tree.map(piece.repeat, row._replace(coding=None))

    def step_row(moments, row, param, gradient):
        if in_common:
            row = row._replace(hyperparameters=hyperparameters[0])
        return step(moments, row, param, gradient)

    moments, coding, new = jax.vmap(step_row)(moments, row, param, gradient)
    return moments, rows[1] if piece.joined else coding, piece.divide(new)


class _Row(NamedTuple):
    """The inputs of a step of one parameter, beside its arrays."""

    hyperparameters: Any  # those of its group, from `_hyperparameters.pack`
    counts: Any  # its number of steps
    coding: Any  # its `Coding`, or `None`
    stepping: Any  # whether it takes a step; `None` if all do


def _step_one(state_dtype, decays, lazy, leaves, row, param, gradient):
    dtype = gradient.dtype
    form = _moments.form_of(param.dtype, state_dtype, lazy)
    moments = _moments.with_columns(form, leaves)
    if state_dtype is not None:
        moments = _moments.with_coding(moments, row.coding)
    arguments = _hyperparameters.unpack(row.hyperparameters)
    # Optax multiplies the gradients by these two without casting them; the other
    # arguments are cast where they are used.
    for name in ("learning_rate", "weight_decay"):
        arguments[name] = jnp.asarray(arguments[name], jnp.finfo(dtype).dtype)
    if not decays:
        arguments["weight_decay"] = 0.0
    old = [jnp.asarray(param, dtype)]
    tx = _moments.transformation(arguments, state_dtype, lazy, old)
    state = map_moments(lambda _: moments, tx.init([]))
    state = optax.tree_utils.tree_set(state, count=row.counts)
    updates, state = tx.update([gradient], state, old)
    moments = _moments.moments_in(state)
    coding = row.coding
    if state_dtype is not None:
        coding = _moments.coding_of(moments, like=coding)
    (new,) = jax.tree.leaves(optax.apply_updates(old, updates))
    after = _moments.leaves_of(moments), coding, new.astype(param.dtype)
    if row.stepping is None:
        return after
    before = tuple(leaves), row.coding, param
    return jax.tree.map(lambda x, y: jnp.where(row.stepping, x, y), after, before)


@functools.lru_cache(maxsize=128)
def program_of(specs: tuple[Spec, ...], donate: bool, on_cpu: bool) -> Program:
    """Return the program for these specs, shared by all optimizers that have them."""
    return Program(specs, donate, on_cpu)
