"""Compare Adam, AdamW, Adamax and adamaxw, each at its best learning rate.

    python benchmarks/when_to_use.py            half an hour on two quiet cores
    python benchmarks/when_to_use.py --quick    half a minute, to see that it runs

The tasks are those of `low_precision_tasks.py`, and a factorisation whose rows are
drawn by Zipf's law, where `ao.lazy_rows` is compared too. Prints tables, and writes the
numbers to `benchmarks/results`.
"""

import datetime
import functools
import importlib.metadata
import json
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from low_precision_tasks import TASKS, Task, first_parameters, train
from report import options, put_into_page, report, rounded, table

import adamax_optax as ao

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
SEEDS = 5
AVERAGED = 0.1  # the last tenth of the batches makes the final loss
DECAY = 0.01
ROUNDS = 30  # of step times, of which the median counts

Optimizer = Callable[[Any], optax.GradientTransformation]

OPTIMIZERS: dict[str, Optimizer] = {
    "Adam": optax.adam,
    "AdamW": functools.partial(optax.adamw, weight_decay=DECAY),
    "Adamax": ao.adamax,
    "adamaxw": functools.partial(ao.adamaxw, weight_decay=DECAY),
}
LAZY: dict[str, Optimizer] = {
    "Adam, lazy rows": lambda rate: ao.lazy_rows(optax.adam(rate)),
    "Adamax, lazy rows": lambda rate: ao.lazy_rows(ao.adamax(rate)),
}
FACTORISATION = "factorisation"


def factorisation(rows: int = 1000, rank: int = 8) -> Task:
    """A task of completing a matrix whose rows and columns follow Zipf's law.

    Row k comes up in proportion to 1/k, so that most rows have a gradient in few
    batches. The loss is that of the entries as they come up.
    """
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, rows + 1)
    pairs = rng.choice(rows, size=(100_000, 2), p=shares / shares.sum())
    left, right = rng.normal(size=(2, rows, rank)) / rank**0.25
    noise = 0.1 * rng.normal(size=len(pairs))
    values = (left[pairs[:, 0]] * right[pairs[:, 1]]).sum(1) + noise
    row, column, value = (
        jnp.asarray(pairs[:, 0]),
        jnp.asarray(pairs[:, 1]),
        jnp.asarray(values, jnp.float32),
    )

    def init(key: jax.Array) -> Any:
        keys = jax.random.split(key)
        return [0.1 * jax.random.normal(k, (rows, rank)) for k in keys]

    def loss(params: Any, indices: jax.Array) -> jax.Array:
        products = params[0][row[indices]] * params[1][column[indices]]
        return jnp.mean((products.sum(-1) - value[indices]) ** 2)

    return Task(
        init, loss, len(pairs), batch=64, steps=3000, learning_rates=(1e-2, 3e-2, 1e-1)
    )


ALL_TASKS: dict[str, Callable[..., Task]] = {**TASKS, FACTORISATION: factorisation}


def compare(name: str, seeds: int, steps: int | None) -> dict[str, Any]:
    """Train one task with every optimizer and learning rate."""
    task = ALL_TASKS[name]()
    params = first_parameters(task, seeds)
    optimizers = {**OPTIMIZERS, **(LAZY if name == FACTORISATION else {})}
    found = {}
    for title, optimizer in optimizers.items():
        start = time.perf_counter()
        losses = train(task, params, optimizer, RATES, steps or task.steps)
        found[title] = {
            "losses": final(losses),
            **cost(optimizer, jax.tree.map(lambda p: p[0], params)),
        }
        report(f"{name}, {title}: {time.perf_counter() - start:.0f} s")
    return {"steps": steps or task.steps, "batch": task.batch, "optimizers": found}


def final(losses: np.ndarray) -> list[list[float]]:
    """Average the last losses, for each learning rate and seed."""
    last = max(1, round(AVERAGED * losses.shape[-1]))
    return losses[..., -last:].astype(np.float64).mean(-1).tolist()


def cost(optimizer: Optimizer, params: Any) -> dict[str, float]:
    """Return the bytes of state per parameter, and the median time of a step."""
    tx = optimizer(1e-3)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(params, state, params)  # any gradients will do
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    size = sum(x.size for x in jax.tree.leaves(params))
    kept = sum(x.nbytes for x in jax.tree.leaves(state)) / size
    jax.block_until_ready(step(params, state))
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        jax.block_until_ready(step(params, state))
        times.append(time.perf_counter() - start)
    return {"bytes": kept, "microseconds": 1e6 * float(np.median(times))}


def best(losses: Sequence[Sequence[float]]) -> int:
    """Return the number of the learning rate with the least mean loss."""
    means = [float(np.mean(x)) for x in losses]
    return min(range(len(means)), key=lambda i: (math.isnan(means[i]), means[i]))


def markdown(results: dict[str, Any]) -> str:
    """Return a table for each task, and where the numbers come from."""
    about, blocks = results["about"], []
    for name, task in results["tasks"].items():
        rows = []
        for title, found in task["optimizers"].items():
            i = best(found["losses"])
            losses = found["losses"][i]
            rows.append(
                (
                    title,
                    f"{about['rates'][i]:g}",
                    f"{np.mean(losses):.4g}",
                    f"{np.std(losses, ddof=1):.2g}",
                    f"{found['bytes']:.2f}",
                    f"{found['microseconds']:.0f} µs",
                )
            )
        head = ("", "best lr", "loss", "spread", "bytes of state", "step")
        blocks.append(
            f"**{name}**, {task['steps']} steps of {task['batch']}\n\n"
            f"{table(head, rows)}\n"
        )
    versions = about["versions"]
    blocks.append(
        f"Learning rates: {', '.join(f'{rate:g}' for rate in about['rates'])}, each "
        f"constant. The loss is the mean of the last {about['averaged']:.0%} of the "
        f"batches, the spread its standard deviation over {about['seeds']} seeds; "
        "bytes are per parameter, and a step is the optimizer's alone.\n"
        f"{about['device']}, {about['date']}; jax {versions['jax']}, optax "
        f"{versions['optax']}, adamax_optax {versions['adamax_optax']}.\n"
    )
    return "\n".join(blocks)


def measure(quick: bool) -> dict[str, Any]:
    """Measure everything."""
    names = ("MLP", FACTORISATION) if quick else tuple(ALL_TASKS)
    seeds, steps = (2, 20) if quick else (SEEDS, None)
    tasks = {name: compare(name, seeds, steps) for name in names}
    packages = ("jax", "jaxlib", "optax", "flax", "numpy", "scikit-learn")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "about": {
            "date": datetime.date.today().isoformat(),
            "device": f"{jax.devices()[0].device_kind} "
            f"({platform.machine()}, {os.cpu_count()} cores)",
            "versions": {"adamax_optax": ao.__version__, **versions},
            "quick": quick,
            "seeds": seeds,
            "rates": list(RATES),
            "averaged": AVERAGED,
        },
        "tasks": tasks,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    args = options(__doc__).parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    numbers = args.out / "when_to_use.json"
    if not args.redraw:
        numbers.write_text(json.dumps(rounded(measure(args.quick)), indent=1) + "\n")
    results = json.loads(numbers.read_text())
    if args.page:
        put_into_page(args.page, markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
