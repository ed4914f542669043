"""Tables and the picture, all of them made from the numbers in the JSON file."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from low_precision_forms import NAIVE
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report import table

OURS = ("bfloat16", "float16", "uint16")
NUDGED = "nudged"
# On the quadratic, float32 parameters can reach their best values exactly. Half a unit
# in their last place is a loss of about this.
FLOOR = 1e-13
FAILED = "failed"

# Told apart by the colour-blind too, and by dashes and places besides.
COLOURS = {
    "float32": "#222222",
    "bfloat16": "#009E73",
    "float16": "#AA4499",
    "uint16": "#0072B2",
    NAIVE: "#D55E00",
}


def percent(x: float) -> str:
    """Write a fraction as a percentage with three digits, more above a thousand."""
    x *= 100
    digits = 0 if x >= 100 else 1 if x >= 10 else 2 if x >= 1 else 3
    return f"{x:.{digits}f}%" if x >= 5e-4 else "< 0.001%"


def logs(losses: Any) -> np.ndarray:
    """Return logarithms of losses, of those below the floor the floor's."""
    return np.log(np.maximum(losses, FLOOR))


def mean_loss(losses: Sequence[float]) -> float:
    """Return the geometric mean."""
    return float(np.exp(np.mean(logs(losses))))


def log_spread(losses: Sequence[float]) -> float:
    """Return the standard deviation over seeds of the logarithms of losses."""
    return float(np.std(logs(losses), ddof=1))


def log_ratio(losses: Sequence[float], reference: Sequence[float]) -> float:
    """Return the mean over seeds of log(loss / loss of the reference)."""
    return float(np.mean(logs(losses) - logs(reference)))


def beyond_spread(cell: dict[str, Any], form: str) -> bool:
    """Tell whether a form's losses differ by more than float32's do over the seeds."""
    losses = cell["losses"]
    ratio = log_ratio(losses[form], losses["float32"])
    return not abs(ratio) <= log_spread(losses["float32"])  # not for NaN


def bytes_table(results: dict[str, Any]) -> str:
    """State per parameter, as allocated."""
    return table(
        (
            "state",
            "bytes per parameter",
            "bytes of counts, keys and scales",
            "parameters",
        ),
        [
            (
                form,
                f"{count['per_parameter']:g}",
                f"{count['besides']}",
                f"{count['parameters']:,}",
            )
            for form, count in results["bytes"].items()
        ],
    )


def noise_table(noise: dict[str, Any]) -> str:
    """Errors against float64."""
    keys = ("u_median", "u_p95", "u_max", "u_worst", "displacement")
    head = ("u: median", "95%", "max", "max at any time", "displacement, rms")
    return table(
        ("state", *head),
        [
            (form, *(percent(errors[key]) for key in keys))
            for form, errors in noise["forms"].items()
        ],
    )


def training_table(results: dict[str, Any]) -> str:
    """Losses relative to float32."""
    cells = results["training"]
    forms = [form for form in cells[0]["losses"] if form != "float32"]
    rows = []
    for cell in cells:
        losses = cell["losses"]
        beyond = [form for form in OURS if form in losses and beyond_spread(cell, form)]
        rows.append(
            (
                cell["task"],
                f"{cell['learning_rate']:g}",
                f"{mean_loss(losses['float32']):.4f}",
                f"× {math.exp(log_spread(losses['float32'])):.3f}",
                *(
                    f"{math.exp(log_ratio(losses[form], losses['float32'])):.3f}"
                    for form in forms
                ),
                f"beyond: {', '.join(beyond)}" if beyond else "within",
            )
        )
    return table(
        ("task", "rate", "float32 loss", "its spread", *forms, "verdict"), rows
    )


def rounding_table(results: dict[str, Any]) -> str:
    """Losses with bfloat16 parameters."""
    rounding = results["rounding"]["losses"]
    reference = rounding["float32"]
    return table(
        ("parameters", "loss", "relative to float32", "spread over seeds"),
        [
            (
                form,
                f"{mean_loss(losses):.4f}",
                f"{math.exp(log_ratio(losses, reference)):.3f}",
                f"× {math.exp(log_spread(losses)):.3f}",
            )
            for form, losses in rounding.items()
        ],
    )


def ratio(losses: Sequence[float], reference: Sequence[float]) -> str:
    """Write the mean ratio of two losses; a NaN is a run that failed."""
    x = math.exp(log_ratio(losses, reference))
    if math.isnan(x):
        return FAILED
    return f"{x:.3f}" if x < 10 else f"{x:.3g}"


def hard_table(results: dict[str, Any]) -> str:
    """Losses relative to float32 for each task and betas."""
    rows = []
    for name, task in results["hard_tasks"].items():
        for betas, losses in task["betas"].items():
            exact = losses["float32"]
            rows.append(
                (
                    name,
                    betas,
                    f"{mean_loss(exact):.3g}",
                    f"× {math.exp(log_spread(exact)):.3f}",
                    *(ratio(x, exact) for form, x in losses.items() if x is not exact),
                )
            )
    names = [*OURS, "parameters to nearest", "at random", "at random, uint16"]
    return table(("task", "β1, β2", "float32 loss", "its spread", *names), rows)


def best(losses: Sequence[Sequence[float]]) -> int:
    """Return the number of the learning rate with the least mean log loss."""
    means = np.mean(logs(losses), axis=1)
    return int(np.argmin(np.where(np.isnan(means), np.inf, means)))


def peers_table(results: dict[str, Any]) -> str:
    """Losses relative to Adam, each optimizer at its best rate."""
    rows = []
    for name, task in results["hard_tasks"].items():
        found = {
            method: (task["rates"][best(x)], x[best(x)])
            for method, x in task["best"].items()
        }
        rate, adam = found["Adam"]
        cells = [f"{mean_loss(adam):.3g} ({rate:g})"]
        for rate, losses in list(found.values())[1:]:
            text = ratio(losses, adam)
            if text != FAILED:
                spread = math.exp(np.std(logs(losses) - logs(adam), ddof=1))
                text += f" × {spread:.2f} ({rate:g})"
            cells.append(text)
        rows.append((name, *cells))
    methods = [method_name(method) for method in found]
    return table(("task", *methods), rows)


def method_name(method: str) -> str:
    """Name the optimizer with its form."""
    if method in ("torchao", "bitsandbytes", "flashoptim-jax"):
        return f"Adam, {method}"
    return method if method == "Adam" else f"Adamax, {method}"


def cost_table(results: dict[str, Any]) -> str:
    """Bytes and time of a step."""
    return table(
        ("optimizer", "bytes of state per parameter", "step, ms", "over Adam"),
        [
            (
                method_name(method),
                f"{cost['bytes']:.3f}",
                f"{cost['milliseconds']:.3g}",
                f"{cost['ratio']:.2f}",
            )
            for method, cost in results["peers"]["cost"].items()
        ],
    )


def hard_markdown(results: dict[str, Any]) -> str:
    """Return the tables of the hard tasks and of the other optimizers."""
    about, peers = results["about"], results["peers"]
    versions = ", ".join(f"{name} {v}" for name, v in peers["versions"].items())
    apart = " and ".join(
        f"{percent(x)} of the distance moved ({name})"
        for name, x in peers["apart"].items()
    )
    rates = "; ".join(
        f"{task['middle']:g} for {name}" for name, task in results["hard_tasks"].items()
    )
    return f"""\
Harder tasks (`benchmarks/low_precision_hard_tasks.py`), {about["seeds"]} seeds.
The loss is the mean of the last {about["averaged"]:.0%} of the steps, for the bandit of
all of them. Ratios to float32 as above. In the last three columns the parameters are
bfloat16: rounded to nearest or at random, with float32 state, and at random with
`uint16` state. Losses below {FLOOR:g} count as {FLOOR:g}.
Learning rates: {rates}.

{hard_table(results)}

Beside Adam, at β1 = 0.9 and β2 = 0.999, each optimizer at the best of five learning
rates, which stand in parentheses. Of Adam: the loss. Of the others: the ratio to Adam's
loss, and the factor of one standard deviation of the ratio over the seeds. "{FAILED}":
at every rate, some seeds became NaN.

{peers_table(results)}

State as allocated, and a step on one array of {peers["elements"]:,} parameters, of
{peers["rounds"]} rounds in turn: the least time, and the median of the ratios to Adam's
time in the same round. The load average was {peers["load"]:.1f}: above 1 for each core,
other work makes the times too long, and only ratios count. flashoptim-jax runs without
its kernels, which need a GPU. {versions}:

{cost_table(results)}

The losses of torchao and bitsandbytes are those of their method in JAX
(`benchmarks/low_precision_peers.py`), which quantizes arrays below 4096 elements
too. Over 50 steps it differs from the libraries' own steps on CPU by
{apart or "an unknown part, since they were not installed"}.
"""


def markdown(results: dict[str, Any]) -> str:
    """Return all tables with a sentence before each."""
    about, noise = results["about"], results["noise"]
    steps, size = noise["shrinking"]["steps"][-1], noise["shrinking"]["size"]
    factor = 1 / noise["shrinking"]["last_size"]
    rounding = results["rounding"]
    versions = ", ".join(f"{name} {v}" for name, v in about["versions"].items())
    tail = about["averaged"]
    return f"""\
Measured on {about["date"]} on {about["device"]}; {versions}.

State as allocated for float32 parameters:

{bytes_table(results)}

Relative error of u, and of the distance moved, against float64 after {steps} steps of
noise that shrinks {factor:.0f}-fold ({size} elements):

{noise_table(noise["shrinking"])}

The same with noise that does not shrink:

{noise_table(noise["pure"])}

Final training loss, the mean of the last {tail:.0%} of the batches, over
{about["seeds"]} seeds. Of float32: the geometric mean and the factor of one standard
deviation over the seeds. Of the others: the ratio to float32 with the same seeds and
batches. "nudged" is float32 again, its first parameters multiplied by
{1 + about["nudge"]:g}: what chance alone does. The last rate of each task is too high.
The verdict names those of {", ".join(OURS)} whose mean log ratio
is larger than one standard deviation of float32's log losses over the seeds:

{training_table(results)}

bfloat16 parameters, {rounding["task"]}, learning rate {rounding["learning_rate"]:g},
{rounding["steps"]} steps; the ratios are to float32 parameters with float32 state:

{rounding_table(results)}

{hard_markdown(results)}"""


def save_picture(path: Path, results: dict[str, Any]) -> None:
    """Draw the loss on the left and the error of u on the right."""
    # Figure, and not pyplot: no display is needed and no global state is left.
    figure = Figure(figsize=(11.5, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_losses(left, results["curves"], results["about"]["seeds"])
    draw_errors(right, results["noise"]["shrinking"])
    for ax in (left, right):
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=10)
    figure.savefig(path, dpi=110)


def draw_losses(ax: Axes, curves: dict[str, Any], seeds: int) -> None:
    """Draw the loss of three forms: two of them lie on each other."""
    names = {
        "float32": "float32, 8 bytes per parameter",
        "uint16": "uint16, 2 bytes",
        NAIVE: "bfloat16 stored naively, 4 bytes",
    }
    styles: dict[str, dict[str, Any]] = {
        "float32": {"linewidth": 5, "alpha": 0.3, "solid_capstyle": "round"},
        "uint16": {"linewidth": 1.8},
        NAIVE: {"linewidth": 1.8, "linestyle": (0, (4, 1.5))},
    }
    for form, name in names.items():
        ax.semilogy(
            curves["steps"],
            curves["losses"][form],
            color=COLOURS[form],
            label=name,
            **styles[form],
        )
    ax.set_title(
        f"The 2-byte state trains as float32 does\n"
        f"{curves['task']} on digits, learning rate {curves['learning_rate']:g}, "
        f"mean of {seeds} seeds",
        fontsize=12,
    )
    ax.set_xlabel("step", fontsize=11)
    ax.set_ylabel("training loss", fontsize=11)
    ax.legend(frameon=False, fontsize=10.5)


def draw_errors(ax: Axes, noise: dict[str, Any]) -> None:
    """Draw the error of u in every form, each line labelled at its end."""
    steps = noise["steps"]
    for form, errors in noise["forms"].items():
        if form == "float32":
            continue  # six powers of ten below the others
        curve = 100 * np.asarray(errors["curve"])
        dashed = form == NAIVE
        ax.semilogy(
            steps,
            curve,
            color=COLOURS[form],
            linewidth=1.8,
            linestyle=(0, (4, 1.5)) if dashed else "-",
        )
        name = "naive\nbfloat16" if dashed else form
        ax.annotate(
            f"{name}\n{percent(curve[-1] / 100)}",
            (steps[-1], curve[-1]),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=COLOURS[form],
            fontsize=10.5,
        )
    ax.set_title(
        "Its norm follows gradients that shrink\n"
        f"{1 / noise['last_size']:.0f}-fold over {steps[-1]} steps",
        fontsize=12,
    )
    ax.set_xlabel("step", fontsize=11)
    ax.set_ylabel("median relative error of u", fontsize=11)
    ax.set_xlim(0, 1.02 * steps[-1])
    ax.set_ylim(top=3 * ax.get_ylim()[1])  # room for the topmost label
    ax.yaxis.set_major_formatter(lambda x, _: f"{x:g}%")
