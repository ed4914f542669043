"""Show what reduced-precision state costs: error, training loss, bytes.

    python benchmarks/low_precision.py            twenty minutes on two quiet cores
    python benchmarks/low_precision.py --quick    a minute, to see that it runs

Prints tables, and writes the numbers and a picture to `benchmarks/results`. Beside Adam
it compares bitsandbytes, torchao and flashoptim-jax, where these are installed.
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
from low_precision_hard_tasks import HARD_TASKS
from low_precision_peers import adams, check_rendering, measure_cost, versions
from low_precision_report import NUDGED, markdown, save_picture
from low_precision_tasks import TASKS, Task, final, first_parameters, train
from report import options, put_into_page, report, rounded

import adamax_optax as ao

AVERAGED = Task._field_defaults["averaged"]
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
BETAS = ((0.9, 0.999), (0.99, 0.999), (0.9, 0.95))
PARTS = ("states", "tasks", "peers")


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
    hard_tasks: tuple[str, ...]
    betas: tuple[tuple[float, float], ...]
    cost_elements: int  # of the array whose steps are timed
    cost_rounds: int


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
    hard_tasks=tuple(HARD_TASKS),
    betas=BETAS,
    cost_elements=2**22,
    cost_rounds=9,
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
    hard_tasks=("quadratic",),
    betas=BETAS[:1],
    cost_elements=2**14,
    cost_rounds=2,
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
            {"learning_rate": task.learning_rates},
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
            "losses": {
                form: final(losses[name, form][i], AVERAGED) for form in size.forms
            },
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
            {"learning_rate": [ROUNDING_RATE]},
            size.rounding_steps,
            at_random,
        )
        report(f"parameters in {name}")
        return final(losses[0], AVERAGED)

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


def measure_hard_tasks(size: Size) -> dict[str, Any]:
    """Train the hard tasks with every form and betas, and with every form of Adam.

    Returns:
      For each task its rates, the one in the middle, at which betas are compared, and
      final losses over the seeds: under "betas" by betas and then by form or dtype of
      the parameters, under "best" by form or form of Adam and then by rate.
    """
    prepared = {}
    for name in size.hard_tasks:
        task = HARD_TASKS[name]()
        prepared[name] = task, first_parameters(task, size.seeds)
    forms = {name: form for name, form in FORMS.items() if name != NAIVE}
    roundings = {f"parameters {name}": how for name, how in ROUNDINGS.items()}
    del roundings["parameters float32"]
    of_adam = adams()

    def run(job: tuple[str, str]) -> list[list[float]]:
        name, method = job
        task, params = prepared[name]
        start = time.perf_counter()
        rates = task.learning_rates
        middle = rates[len(rates) // 2]
        at_betas = [(middle, *betas) for betas in size.betas]
        at_rates = [(rate, *BETAS[0]) for rate in rates]
        keys: tuple[str, ...] = ("learning_rate", "b1", "b2")
        at_random = False
        if method in roundings:
            state, dtype, at_random = roundings[method]
            params = jax.tree.map(lambda p: p.astype(dtype), params)
            optimizer, chosen = FORMS[state], at_betas
        elif method in forms:
            optimizer, chosen = forms[method], at_betas + at_rates
        else:
            optimizer, chosen, keys = of_adam[method], at_rates, keys[:1]
        losses = train(
            task,
            params,
            optimizer,
            dict(zip(keys, zip(*chosen, strict=True), strict=False)),
            size.steps or task.steps,
            at_random,
        )
        report(f"{name}, {method}: {time.perf_counter() - start:.0f} s")
        return [final(x, task.averaged) for x in losses]

    jobs = [(name, x) for name in prepared for x in (*forms, *roundings, *of_adam)]
    found = dict(zip(jobs, in_parallel(run, jobs), strict=True))
    count = len(size.betas)
    return {
        name: {
            "rates": list(task.learning_rates),
            "middle": task.learning_rates[len(task.learning_rates) // 2],
            "steps": size.steps or task.steps,
            "averaged": task.averaged,
            "betas": {
                f"{b1:g}, {b2:g}": {
                    method: found[name, method][i] for method in (*forms, *roundings)
                }
                for i, (b1, b2) in enumerate(size.betas)
            },
            "best": {
                **{method: found[name, method] for method in of_adam},
                **{method: found[name, method][count:] for method in forms},
            },
        }
        for name, (task, _) in prepared.items()
    }


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


def measure_states(size: Size) -> dict[str, Any]:
    """Measure bytes, errors, and the losses of four networks."""
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
    return {
        "bytes": counts,
        "noise": noise,
        "training": training,
        "rounding": measure_rounding(size),
        "curves": curves,
    }


def measure_peers(size: Size) -> dict[str, Any]:
    """Measure what a step of each optimizer costs."""
    return {
        "versions": versions(),
        "load": os.getloadavg()[0],  # the machine may have other work
        "elements": size.cost_elements,
        "rounds": size.cost_rounds,
        "cost": measure_cost(size.cost_elements, size.cost_rounds),
        "apart": check_rendering(),
    }


def measure(size: Size, quick: bool, parts: Sequence[str]) -> dict[str, Any]:
    """Measure these parts."""
    packages = ("jax", "jaxlib", "optax", "flax", "numpy", "scikit-learn")
    found = {name: importlib.metadata.version(name) for name in packages}
    results: dict[str, Any] = {
        "about": {
            "date": datetime.date.today().isoformat(),
            "device": f"{jax.devices()[0].device_kind} "
            f"({platform.machine()}, {os.cpu_count()} cores)",
            "versions": {
                "adamax_optax": ao.__version__,
                "Python": platform.python_version(),
                **found,
            },
            "quick": quick,
            "seeds": size.seeds,
            "averaged": AVERAGED,
            "nudge": NUDGE,
        }
    }
    if "states" in parts:
        results |= measure_states(size)
    if "tasks" in parts:
        results["hard_tasks"] = measure_hard_tasks(size)
    if "peers" in parts:
        results["peers"] = measure_peers(size)
    return results


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return old figures, replaced by those that were measured again.

    Raises:
      ValueError: If they are of another machine, day or version.
    """
    if old["about"] != new["about"]:
        raise ValueError(
            f"--parts needs figures of the same kind, got {old['about']} and "
            f"{new['about']}: measure all."
        )
    return {**old, **new}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write and draw."""
    parser = options(__doc__)
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        help="measure these, keep the other figures",
    )
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    numbers = args.out / "low_precision.json"

    if not args.redraw:
        size = QUICK if args.quick else FULL
        results = rounded(measure(size, args.quick, args.parts or PARTS))
        if args.parts:
            results = merged(json.loads(numbers.read_text()), results)
        numbers.write_text(json.dumps(results, indent=1) + "\n")
    results = json.loads(numbers.read_text())
    save_picture(args.out / "low_precision.png", results)
    if args.page:
        put_into_page(args.page, markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
