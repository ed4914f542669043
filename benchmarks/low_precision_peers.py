"""Adam beside Adamax: in float32, in 8 bits, and in flashoptim-jax.

torchao and bitsandbytes keep Adam's moments in 8 bits by one method (Dettmers et al.,
8-bit Optimizers via Block-wise Quantization, 2021). `adam_8bit` is that method in JAX,
so that it can train on the same tasks. `check_rendering` follows the libraries
themselves, where they are installed, and says how far they are from it.
"""

import functools
import importlib
import importlib.metadata
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from low_precision_forms import FORMS, NAIVE, Optimizer
from report import report

BLOCK = 256  # elements that share a scale
GRID = 32767.5  # bitsandbytes on CPU rounds to a 16-bit grid before it looks up a code
RATE = 1e-3


def dynamic_map(signed: bool) -> np.ndarray:
    """Return the 256 numbers of the 8-bit code, in order.

    `create_dynamic_map` of `bitsandbytes/functional.py`: in each of seven decades twice
    as many numbers as in the one below, halfway between equidistant boundaries.
    """
    numbers = [0.0, 1.0]
    for i in range(7):
        count = 2**i if signed else 2 ** (i + 1)
        boundaries = np.linspace(0.1, 1, count + 1)
        means = 10.0 ** (i - 6) * (boundaries[:-1] + boundaries[1:]) / 2
        numbers += [*means, *-means] if signed else [*means]
    return np.sort(np.asarray([*numbers, *[0.0] * (256 - len(numbers))], np.float32))


MAPS = {signed: dynamic_map(signed) for signed in (True, False)}


class Blocks(NamedTuple):
    """An array in 8 bits: codes of its shape, and a float32 scale for each block."""

    codes: jax.Array
    scales: jax.Array


def quantize(x: jax.Array, signed: bool, grid: bool) -> Blocks:
    """Divide each block by its largest modulus and take the nearest number.

    With `grid`, that nearest to the nearest of 2^16 points from -1 to 1, none of which
    is 0. So v never becomes 0, which it does without, where m / sqrt(v) is then large.
    """
    blocks = jnp.pad(x.ravel(), (0, -x.size % BLOCK)).reshape(-1, BLOCK)
    scales = jnp.abs(blocks).max(1)
    numbers = MAPS[signed]
    halfway = jnp.asarray((numbers[1:] + numbers[:-1]) / 2)
    scaled = blocks / jnp.maximum(scales, 1e-30)[:, None]
    if grid:
        scaled = jnp.floor((scaled + 1) * GRID + 0.5) / GRID - 1
    codes = jnp.searchsorted(halfway, scaled).ravel()[: x.size]
    return Blocks(codes.reshape(x.shape).astype(jnp.uint8), scales)


def dequantize(x: Blocks, signed: bool) -> jax.Array:
    """Return float32 numbers."""
    scales = jnp.repeat(x.scales, BLOCK)[: x.codes.size].reshape(x.codes.shape)
    return jnp.asarray(MAPS[signed])[x.codes.astype(jnp.int32)] * scales


class Adam8bitState(NamedTuple):
    """Step count, and the moments in blocks of 8 bits."""

    steps: jax.Array
    mu: Any
    nu: Any


def adam_8bit(learning_rate: Any, grid: bool) -> optax.GradientTransformation:
    """Adam with block-wise 8-bit moments, for arrays of any size.

    The libraries quantize only arrays of 4096 elements or more. As in both of them, the
    parameter moves by the moments as they are before they are quantized.

    Args:
      learning_rate: A number or a schedule.
      grid: As bitsandbytes on CPU has it; else as torchao.
    """
    b1, b2, eps = 0.9, 0.999, 1e-8

    def init_fn(params: Any) -> Adam8bitState:
        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape), params)
        mu, nu = (
            jax.tree.map(functools.partial(quantize, signed=signed, grid=grid), zeros)
            for signed in (True, False)
        )
        return Adam8bitState(jnp.zeros((), jnp.int32), mu, nu)

    def update_fn(updates, state, params=None):
        del params
        gradients = jax.tree.leaves(updates)
        treedef: Any = jax.tree.structure(updates)
        count = state.steps + 1
        rate = learning_rate(state.steps) if callable(learning_rate) else learning_rate
        moved, mu, nu = [], [], []
        for g, m, v in zip(
            gradients,
            treedef.flatten_up_to(state.mu),
            treedef.flatten_up_to(state.nu),
            strict=True,
        ):
            m = b1 * dequantize(m, True) + (1 - b1) * g
            v = b2 * dequantize(v, False) + (1 - b2) * g * g
            step = m / (1 - b1**count) / (jnp.sqrt(v / (1 - b2**count)) + eps)
            moved.append(-rate * step)
            mu.append(quantize(m, True, grid))
            nu.append(quantize(v, False, grid))
        moments = (treedef.unflatten(mu), treedef.unflatten(nu))
        return treedef.unflatten(moved), Adam8bitState(count, *moments)

    return optax.GradientTransformation(init_fn, update_fn)


def installed(*names: str) -> bool:
    """Tell whether all these modules can be imported."""
    return all(importlib.util.find_spec(name) for name in names)


def flash_adam(learning_rate: Any) -> optax.GradientTransformation:
    """flashoptim-jax's Adam: moments in 8 bits with a scale for every 32 elements."""
    flashoptim_jax = importlib.import_module("flashoptim_jax")
    tx = flashoptim_jax.flash_adam(learning_rate, master_weight_bits=None, fused=False)

    def update_fn(updates, state, params=None):
        new, state = tx.step(params, state, updates)
        return jax.tree.map(jnp.subtract, new, params), state

    return optax.GradientTransformation(tx.init, update_fn)


ADAM, FLASH = "Adam", "flashoptim-jax"
# Libraries of PyTorch, and whether they round to the grid.
LIBRARIES = {"torchao": False, "bitsandbytes": True}


def adams() -> dict[str, Optimizer]:
    """Return every form of Adam that can train here."""
    found: dict[str, Optimizer] = {ADAM: optax.adam}
    for name, grid in LIBRARIES.items():
        found[name] = functools.partial(adam_8bit, grid=grid)
    return {**found, FLASH: flash_adam} if installed("flashoptim_jax") else found


def torch_optimizer(name: str) -> Callable[[Any], Any]:
    """Return a library's Adam8bit, from parameters to the optimizer."""
    library = importlib.import_module(f"{name}.optim")
    return lambda params: library.Adam8bit(params, lr=RATE)


def torch_libraries() -> list[str]:
    """Return those that are installed."""
    return [name for name in LIBRARIES if installed("torch", name)]


def check_rendering(steps: int = 50, shape: tuple[int, int] = (64, 128)) -> Any:
    """Follow the libraries' Adam8bit; return the distances, relative to that moved."""
    found = {}
    for name in torch_libraries():
        torch = importlib.import_module("torch")
        rng = np.random.default_rng(0)
        first = rng.normal(size=shape).astype(np.float32)
        theirs = torch.nn.Parameter(torch.tensor(first))
        optimizer = torch_optimizer(name)([theirs])
        ours, tx = jnp.asarray(first), adam_8bit(RATE, LIBRARIES[name])
        state, update = tx.init(ours), jax.jit(tx.update)
        for step in range(steps):
            sizes = 0.97**step * np.geomspace(1e-3, 1, shape[1])
            gradient = (rng.normal(size=shape) * sizes).astype(np.float32)
            theirs.grad = torch.tensor(gradient)
            optimizer.step()
            updates, state = update(jnp.asarray(gradient), state)
            ours = ours + updates
        moved = theirs.detach().numpy() - first
        apart = np.asarray(ours) - first - moved
        found[name] = float(np.sqrt(np.mean(apart**2) / np.mean(moved**2)))
        report(f"rendering of {name}: {found[name]:.2g} of the distance moved")
    return found


class Subject(NamedTuple):
    """One optimizer with one array of parameters.

    Attributes:
      run: Takes one step.
      state_bytes: Of everything its state holds.
    """

    run: Callable[[], None]
    state_bytes: int


def jax_subject(optimizer: Optimizer, size: int) -> Subject:
    """One jitted step, parameters and state donated."""
    tx = optimizer(RATE)
    params, gradient = jax.random.normal(jax.random.key(0), (2, size // 1024, 1024))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    held = [params, tx.init(params)]
    count = sum(leaf.nbytes for leaf in jax.tree.leaves(held[1]))

    def run() -> None:
        held[:] = step(*held, gradient)
        jax.block_until_ready(held)

    return Subject(run, count)


def torch_subject(name: str, size: int) -> Subject:
    """One step as the library takes it."""
    torch = importlib.import_module("torch")
    param = torch.nn.Parameter(torch.randn(size // 1024, 1024))
    param.grad = torch.randn_like(param)
    optimizer = torch_optimizer(name)([param])
    optimizer.step()

    def count(x: Any) -> int:
        if hasattr(x, "tensor_attrs"):  # torchao's array of codes, scales and map
            return sum(count(getattr(x, part)) for part in x.tensor_attrs)
        return x.numel() * x.element_size() if isinstance(x, torch.Tensor) else 0

    return Subject(optimizer.step, sum(map(count, optimizer.state[param].values())))


def measure_cost(size: int, rounds: int) -> dict[str, Any]:
    """Time a step of everything in turn, and count the bytes of state.

    Of the ratios to Adam in float32 in the same round the median counts, so that a
    machine that is busy for a while slows both.
    """
    optimizers = {**adams(), **FORMS}
    subjects = {
        name: jax_subject(optimizer, size)
        for name, optimizer in optimizers.items()
        if name not in (*LIBRARIES, NAIVE)
    }
    for name in torch_libraries():
        subjects[name] = torch_subject(name, size)
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds + 1):
        for name, subject in subjects.items():
            start = time.perf_counter()
            subject.run()
            times[name].append(time.perf_counter() - start)
    report("steps timed")
    return {
        name: {
            "bytes": subject.state_bytes / size,
            "milliseconds": 1e3 * min(times[name][1:]),
            # The first round compiles.
            "ratio": statistics.median(
                t / adam
                for t, adam in zip(times[name][1:], times[ADAM][1:], strict=True)
            ),
        }
        for name, subject in subjects.items()
    }


def versions() -> dict[str, str]:
    """Return the versions of the libraries compared, of those that are installed."""
    names = {"flashoptim_jax": "flashoptim-jax", "torch": "torch"}
    names |= {name: name for name in torch_libraries()}
    return {
        package: importlib.metadata.version(package)
        for module, package in names.items()
        if installed(module)
    }
