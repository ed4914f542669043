"""What is timed in JAX: our functional form and class, and Optax's optimizers."""

import abc
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from speed_workloads import Workload

import adamax_optax as ao

RATE = 1e-3
DECAY = 1e-2


class Program(NamedTuple):
    """What the compiler says of a step.

    Attributes:
      bytes: Bytes read and written in all, as its own analysis counts them.
      temporaries: Bytes of scratch memory.
      kernels: Fusions and other operations that it runs one after the other.
    """

    bytes: float
    temporaries: int
    kernels: int


class Subject(abc.ABC):
    """Something that takes steps.

    Attributes:
      compile_seconds: The time to compile it, or until it had taken its first steps.
      state_bytes: The bytes of its state.
      program: What its compiled step looks like; `None` where that cannot be asked.
    """

    compile_seconds = 0.0
    state_bytes = 0
    program: Program | None = None

    @abc.abstractmethod
    def run(self, steps: int) -> float:
        """Take some steps and return the seconds for one."""

    def _compile(self, jitted: Any, *args: Any) -> None:
        start = time.perf_counter()
        compiled = jitted.lower(*args).compile()
        self.compile_seconds = time.perf_counter() - start
        self.program = describe(compiled)


class Functional(Subject):
    """A transformation in one jitted step that overwrites parameters and state."""

    def __init__(
        self,
        tx: optax.GradientTransformation,
        workload: Workload,
        compiler_options: dict[str, Any] | None = None,
    ) -> None:
        def step(params, state, gradients):
            updates, state = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        params, self._gradients = _trees(workload)
        state = tx.init(params)
        self.state_bytes = _bytes(state)
        # The jitted function, not the compiled: it has the faster way to the device.
        self._step = jax.jit(
            step, donate_argnums=(0, 1), compiler_options=compiler_options
        )
        self._compile(self._step, params, state, self._gradients)
        self._carry = self._step(params, state, self._gradients)

    def run(self, steps: int) -> float:
        """Take some steps and return the seconds for one."""
        params, state = self._carry
        start = time.perf_counter()
        for _ in range(steps):
            params, state = self._step(params, state, self._gradients)
        jax.block_until_ready((params, state))
        seconds = time.perf_counter() - start
        self._carry = params, state
        return seconds / steps


class Class(Subject):
    """`ao.Adamax`, whose steps make new parameters unless they may overwrite them."""

    def __init__(
        self, workload: Workload, state_dtype: Any = None, *, donate: bool = False
    ) -> None:
        params, self._gradients = _trees(workload)
        group = {"params": params, "state_dtype": state_dtype}
        optimizer = ao.Adamax([group], lr=RATE, donate=donate)
        del params, group
        # What its program takes: see `adamax_optax.compat._step.Program`.
        packed, own = optimizer._state[0], optimizer._layout.read()
        first = ((packed, own), None) if donate else ((packed,), own)
        rest = jax.tree.leaves(self._gradients), optimizer._table(lambda: None), None
        self._jitted, self._rest = optimizer._program._overwriting, rest
        self._compile(self._jitted, *first, *rest)
        self.state_bytes = _bytes(packed)
        self._optimizer = optimizer
        optimizer([self._gradients])

    def run(self, steps: int) -> float:
        """Take some steps and return the seconds for one."""
        start = time.perf_counter()
        for _ in range(steps):
            params = self._optimizer([self._gradients])
        jax.block_until_ready(params)
        return (time.perf_counter() - start) / steps


class BareClass(Class):
    """The class's compiled step without the class, to see what the class itself costs.

    Its arguments are arranged already, which is part of that cost. With a `pause`, in
    seconds, before each call, to see what it costs that calls do not follow at once.
    """

    def __init__(self, workload: Workload, pause: float = 0.0) -> None:
        super().__init__(workload)
        self._pause = pause
        # The optimizer, which is not used again, keeps its own.
        self._carry = jax.tree.map(jnp.copy, self._optimizer._state)

    def run(self, steps: int) -> float:
        """Take some steps and return the seconds for one."""
        packed, params = self._carry
        start = time.perf_counter()
        for _ in range(steps):
            if self._pause:
                end = time.perf_counter() + self._pause
                while time.perf_counter() < end:
                    pass
            ((packed, params),) = self._jitted((packed,), list(params), *self._rest)
        jax.block_until_ready((packed, params))
        seconds = time.perf_counter() - start
        self._carry = packed, params
        return seconds / steps


class Copy(Subject):
    """One pass that reads and writes an array in place: the memory's own speed.

    Attributes:
      bytes: The bytes that it reads and writes.
    """

    def __init__(self, workload: Workload) -> None:
        # Large enough to lie in memory, whatever the workload.
        size = max(workload.size, 1 << 24)
        self._scale = jax.jit(lambda x: x * 1.000001, donate_argnums=0)
        self._array = self._scale(jnp.ones(size))
        self.bytes = 8 * size

    def run(self, steps: int) -> float:
        """Pass some times and return the seconds for one."""
        array = self._array
        start = time.perf_counter()
        for _ in range(steps):
            array = self._scale(array)
        array.block_until_ready()
        seconds = time.perf_counter() - start
        self._array = array
        return seconds / steps


REFERENCE = "optax.adamax"


def _functional(make: Callable[..., Any], **arguments: Any) -> Callable[..., Subject]:
    return lambda workload: Functional(make(RATE, **arguments), workload)


SUBJECTS: Mapping[str, Callable[[Workload], Subject]] = {
    REFERENCE: _functional(optax.adamax),
    "optax.adamaxw": _functional(optax.adamaxw, weight_decay=DECAY),
    "optax.adam": _functional(optax.adam),
    "optax.sgd": _functional(optax.sgd),  # what no step can do without
    "ours": _functional(ao.adamax),
    "ours, decay": _functional(ao.adamax, weight_decay=DECAY),
    **{
        f"ours, {name}{', decay' if decay else ''}": _functional(
            ao.adamax, state_dtype=jnp.dtype(name), weight_decay=decay
        )
        for name in ("bfloat16", "float16", "uint16")
        for decay in (0.0, DECAY)
    },
    **{
        f"class{', uint16' if state_dtype else ''}{', donate' if donate else ''}": (
            functools.partial(Class, state_dtype=state_dtype, donate=donate)
        )
        for state_dtype in (None, jnp.uint16)
        for donate in (False, True)
    },
}
# Twice as wide as XLA has them on CPUs with AVX-512.
VECTORS: Mapping[str, Callable[[Workload], Subject]] = {
    f"ours, {name}, 512 bits": functools.partial(
        Functional,
        ao.adamax(RATE, state_dtype=jnp.dtype(name)),
        compiler_options={"xla_cpu_prefer_vector_width": 512},
    )
    for name in ("float16", "uint16")
}
# Where there are thousands of leaves.
STACKED: Mapping[str, Callable[[Workload], Subject]] = {
    f"{name}, stacked": functools.partial(Functional, ao.stack_small_leaves(tx))
    for name, tx in {
        REFERENCE: optax.adamax(RATE),
        "ours": ao.adamax(RATE),
        "ours, uint16": ao.adamax(RATE, state_dtype=jnp.uint16),
    }.items()
}
# What a step takes besides its arithmetic, where there is little of that.
OVERHEADS: Mapping[str, Callable[[Workload], Subject]] = {
    "class, bare": BareClass,
    "class, bare, 10 µs apart": functools.partial(BareClass, pause=10e-6),
}


def describe(compiled: Any) -> Program:
    """Return what the compiler says of a program."""
    cost = compiled.cost_analysis()
    text = compiled.as_text()
    entry = text[text.index("ENTRY") :]
    kernels = sum(
        line.lstrip().startswith("%")
        and not any(f" {name}(" in line for name in _NO_KERNEL)
        for line in entry.splitlines()
    )
    return Program(
        bytes=cost["bytes accessed"],
        temporaries=compiled.memory_analysis().temp_size_in_bytes,
        kernels=kernels,
    )


_NO_KERNEL = ("parameter", "constant", "bitcast", "tuple", "get-tuple-element")


def _trees(workload: Workload) -> tuple[Any, Any]:
    """Return parameters of one's own, and the gradients that all share."""
    return _tree(workload, 0), _gradients(workload)


# Of the last workload only: they may be large.
@functools.lru_cache(maxsize=1)
def _gradients(workload: Workload) -> Any:
    return _tree(workload, 1)


def _tree(workload: Workload, seed: int) -> Any:
    key = jax.random.key(seed)
    return {
        name: _normal(jax.random.fold_in(key, i), shape)
        for i, (name, shape) in enumerate(workload.shapes.items())
    }


def _normal(key: Any, shape: tuple[int, ...]) -> jax.Array:
    # A short pattern: to draw hundreds of millions of numbers would take long.
    pattern = jax.random.normal(key, (251,))
    return jnp.resize(pattern, shape)


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
