"""Show what reduced-precision state costs: error, training loss, bytes.

    python benchmarks/low_precision.py            ten minutes on two quiet cores
    python benchmarks/low_precision.py --quick    half a minute, to see that it runs

Prints tables, and writes the numbers and a picture to `benchmarks/results`.
"""

import datetime
import functools
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from low_precision_forms import FORMS, NAIVE, measure_noise, state_bytes
from low_precision_report import NUDGED, markdown, save_picture
from low_precision_tasks import TASKS, Task, first_parameters, train
from report import options, put_into_page, report, rounded

import adamax_optax as ao

AVERAGED = 0.1  # the last tenth of the batches makes the final loss
NUDGE = 1e-3
PICTURED = ("MLP", 1)  # task and number of the learning rate of the picture's curves
DRAWN = ("float32", "uint16", NAIVE)
ROUNDING_RATE = 3e-4

# Name: state, dtype of the parameters, whether rounded at random.
ROUNDINGS = {
    "float32": ("float32", jnp.float32, False),
    "bfloat16 to nearest": ("float32", jnp.bfloat16, False),
    "bfloat16 at random": ("float32", jnp.bfloat16, True),
    "bfloat16 at random, uint16 state": ("uint16", jnp.bfloat16, True),
}


class Size(NamedTuple):
    """How much to measure."""

    noise_elements: int
    noise_points: int
    tasks: tuple[str, ...]
    forms: tuple[str, ...]
    seeds: int
    steps: int | None  # of training; None: each task's own
    roundings: tuple[str, ...]
    rounding_steps: int
    curve_points: int


FULL = Size(
    noise_elements=4096,
    noise_points=100,
    tasks=tuple(TASKS),
    forms=(*FORMS, NUDGED),
    seeds=5,
    steps=None,
    roundings=tuple(ROUNDINGS),
    rounding_steps=2000,
    curve_points=100,
)
QUICK = Size(
    noise_elements=512,
    noise_points=20,
    tasks=("MLP",),
    forms=DRAWN,
    seeds=2,
    steps=40,
    roundings=("float32", "bfloat16 at random, uint16 state"),
    rounding_steps=40,
    curve_points=20,
)
NOISE_STEPS = 4000


@functools.cache
def prepare(name: str, seeds: int) -> tuple[Task, Any]:
    """Return a task and its first parameters, which two measurements share."""
    task = TASKS[name]()
    return task, first_parameters(task, seeds)


def measure_training(size: Size) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train every task with every form; return final losses and the pictured curves."""
    prepared = {name: prepare(name, size.seeds) for name in size.tasks}

    def run(job: tuple[str, str]) -> np.ndarray:
        name, form = job
        task, params = prepared[name]
        start = time.perf_counter()
        factor = 1 + NUDGE if form == NUDGED else 1.0
        losses = train(
            task,
            jax.tree.map(lambda p: p * factor, params),
            FORMS["float32" if form == NUDGED else form],
            task.learning_rates,
            size.steps or task.steps,
        )
        report(f"{name}, {form}: {time.perf_counter() - start:.0f} s")
        return losses

    jobs = [(name, form) for name in size.tasks for form in size.forms]
    losses = dict(zip(jobs, in_parallel(run, jobs), strict=True))
    cells = [
        {
            "task": name,
            "learning_rate": rate,
            "steps": losses[name, "float32"].shape[-1],
            "losses": {form: final(losses[name, form][i]) for form in size.forms},
        }
        for name, (task, _) in prepared.items()
        for i, rate in enumerate(task.learning_rates)
    ]
    name, i = PICTURED
    drawn = {form: losses[name, form][i].mean(0) for form in DRAWN}
    return cells, {
        "task": name,
        "learning_rate": prepared[name][0].learning_rates[i],
        **binned(drawn, size.curve_points),
    }


def measure_rounding(size: Size) -> dict[str, Any]:
    """Train the MLP with bfloat16 parameters, which lose small updates."""
    task, params = prepare("MLP", size.seeds)

    def run(name: str) -> list[float]:
        state, dtype, at_random = ROUNDINGS[name]
        losses = train(
            task,
            jax.tree.map(lambda p: p.astype(dtype), params),
            FORMS[state],
            [ROUNDING_RATE],
            size.rounding_steps,
            at_random,
        )
        report(f"parameters in {name}")
        return final(losses[0])

    return {
        "task": "MLP",
        "learning_rate": ROUNDING_RATE,
        "steps": size.rounding_steps,
        "losses": dict(
            zip(size.roundings, in_parallel(run, size.roundings), strict=True)
        ),
    }


def in_parallel(run, jobs):
    """Compiling and running leave Python's lock: two at a time fill two cores."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, jobs))


def final(losses: np.ndarray) -> list[float]:
    """Average the last losses of each seed."""
    last = max(1, round(AVERAGED * losses.shape[-1]))
    return [float(x) for x in losses[:, -last:].astype(np.float64).mean(-1)]


def binned(curves: dict[str, np.ndarray], points: int) -> dict[str, Any]:
    """Average curves over equal stretches of steps."""
    steps = len(next(iter(curves.values())))
    width = steps // points
    return {
        "steps": [int(x) for x in np.arange(1, points + 1) * width],
        "losses": {
            form: [
                float(x)
                for x in curve[: points * width].reshape(points, width).mean(-1)
            ]
            for form, curve in curves.items()
        },
    }


def measure(size: Size, quick: bool) -> dict[str, Any]:
    """Measure everything."""
    start = time.perf_counter()
    noise = measure_noise(
        {"shrinking": 0.01, "pure": 1.0},
        steps=NOISE_STEPS,
        size=size.noise_elements,
        points=size.noise_points,
    )
    report("noise")
    shapes = jax.eval_shape(TASKS["LeNet-5"]().init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    counts = {name: state_bytes(form, params) for name, form in FORMS.items()}
    training, curves = measure_training(size)
    rounding = measure_rounding(size)
    packages = ("jax", "jaxlib", "optax", "flax", "numpy", "scikit-learn")
    versions = {name: importlib.metadata.version(name) for name in packages}
    about = {
        "date": datetime.date.today().isoformat(),
        "device": f"{jax.devices()[0].device_kind} "
        f"({platform.machine()}, {os.cpu_count()} cores)",
        "versions": {
            "adamax_optax": ao.__version__,
            "Python": platform.python_version(),
            **versions,
        },
        "quick": quick,
        "seconds": round(time.perf_counter() - start),
        "seeds": size.seeds,
        "averaged": AVERAGED,
        "nudge": NUDGE,
    }
    return {
        "about": about,
        "bytes": counts,
        "noise": noise,
        "training": training,
        "rounding": rounding,
        "curves": curves,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write and draw."""
    args = options(__doc__).parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    numbers = args.out / "low_precision.json"

    if not args.redraw:
        results = rounded(measure(QUICK if args.quick else FULL, args.quick))
        numbers.write_text(json.dumps(results, indent=1) + "\n")
    results = json.loads(numbers.read_text())
    save_picture(args.out / "low_precision.png", results)
    if args.page:
        put_into_page(args.page, markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
