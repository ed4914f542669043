"""Compare Adam, AdamW, Adamax and adamaxw, each at its best learning rate.

    python benchmarks/when_to_use.py            ten minutes on two quiet cores
    python benchmarks/when_to_use.py --quick    half a minute, to see that it runs

The tasks are some of those of `low_precision_tasks.py`, a variational autoencoder, and
a factorisation whose rows are drawn by Zipf's law, where `ao.lazy_rows` is compared
too. Prints tables, and writes the numbers to `benchmarks/results`.
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
from low_precision_hard_tasks import HARD_TASKS, factorisation
from low_precision_tasks import TASKS, Task, final, first_parameters, train
from report import options, put_into_page, report, rounded, table
from speed import FULL, QUICK, Size, take_turns
from speed_subjects import Subject

import adamax_optax as ao

RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
SEEDS = 5
DECAY = 0.01

Optimizer = Callable[[Any], optax.GradientTransformation]

OPTIMIZERS: dict[str, Optimizer] = {
    "Adam": optax.adam,
    "AdamW": functools.partial(optax.adamw, weight_decay=DECAY),
    "Adamax": ao.adamax,
    "adamaxw": functools.partial(ao.adamaxw, weight_decay=DECAY),
}
LAZY: dict[str, Optimizer] = {
    "Adam, lazy rows": lambda learning_rate: ao.lazy_rows(optax.adam(learning_rate)),
    "Adamax, lazy rows": lambda learning_rate: ao.lazy_rows(ao.adamax(learning_rate)),
}
FACTORISATION = "factorisation"


ALL_TASKS: dict[str, Callable[..., Task]] = {
    **{name: TASKS[name] for name in ("MLP", "autoencoder", "transformer")},
    "VAE": HARD_TASKS["VAE"],
    FACTORISATION: factorisation,
}


class TrainingStep(Subject):
    """The training step of one network: its loss, its gradients and its update."""

    def __init__(
        self, task: Task, params: Any, tx: optax.GradientTransformation
    ) -> None:
        def step(params, state, batch):
            loss, gradients = jax.value_and_grad(task.loss)(params, batch)
            updates, state = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), state, loss

        self._batch = jnp.arange(task.batch)
        self._step = jax.jit(step, donate_argnums=(0, 1))
        params = jax.tree.map(jnp.copy, params)
        self._carry = params, tx.init(params)

    def run(self, steps: int) -> float:
        """Take some steps and return the seconds for one."""
        params, state = self._carry
        start = time.perf_counter()
        for _ in range(steps):
            params, state, _ = self._step(params, state, self._batch)
        jax.block_until_ready(params)
        seconds = time.perf_counter() - start
        self._carry = params, state
        return seconds / steps


def compare(name: str, seeds: int, steps: int | None, size: Size) -> dict[str, Any]:
    """Train one task with every optimizer and learning rate, and time the steps."""
    task = ALL_TASKS[name]()
    params = first_parameters(task, seeds)
    first = jax.tree.map(lambda p: p[0], params)
    optimizers = {**OPTIMIZERS, **(LAZY if name == FACTORISATION else {})}
    subjects = {
        title: TrainingStep(task, first, optimizer(1e-3))
        for title, optimizer in optimizers.items()
    }
    with jax.numpy_dtype_promotion("standard"):
        seconds = take_turns(subjects, size)
    found = {}
    for title, optimizer in optimizers.items():
        start = time.perf_counter()
        settings = {"learning_rate": RATES}
        losses = train(task, params, optimizer, settings, steps or task.steps)
        found[title] = {
            "losses": [final(x, task.averaged) for x in losses],
            "bytes": state_bytes(optimizer, first),
            "microseconds": 1e6 * float(np.median(seconds[title])),
        }
        report(f"{name}, {title}: {time.perf_counter() - start:.0f} s")
    return {"steps": steps or task.steps, "batch": task.batch, "optimizers": found}


def state_bytes(optimizer: Optimizer, params: Any) -> float:
    """Return the bytes of state per parameter."""
    state = optimizer(1e-3).init(params)
    size = sum(x.size for x in jax.tree.leaves(params))
    return sum(x.nbytes for x in jax.tree.leaves(state)) / size


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
        "bytes are per parameter. A step is one of training: the loss, the gradients "
        "and the update; the median of rounds in which the optimizers took turns.\n"
        f"{about['device']}, {about['date']}; jax {versions['jax']}, optax "
        f"{versions['optax']}, adamax_optax {versions['adamax_optax']}.\n"
    )
    return "\n".join(blocks)


def measure(quick: bool) -> dict[str, Any]:
    """Measure everything."""
    names = ("MLP", FACTORISATION) if quick else tuple(ALL_TASKS)
    seeds, steps, size = (2, 20, QUICK) if quick else (SEEDS, None, FULL)
    tasks = {name: compare(name, seeds, steps, size) for name in names}
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
            "averaged": Task._field_defaults["averaged"],
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
