"""Tables and the picture of the speed, made from the numbers in the JSON file."""

from pathlib import Path
from typing import Any

from report import table

REFERENCE = "optax.adamax"

SUMMARIZED = (
    "ours",
    "ours, uint16",
    "class, donate",
    "class, uint16, donate",
    "torch-foreach",
    "torch-compile",
    "keras",
    "mindspore",
)

# Told apart by the colour-blind too, and by markers besides.
COLOURS = {REFERENCE: "#E69F00", "ours": "#222222", "ours, uint16": "#0072B2"}


def markdown(results: dict[str, Any]) -> str:
    """Return all tables with a sentence before each."""
    about = results["about"]
    versions = ", ".join(f"{name} {v}" for name, v in about["versions"].items())
    parts = [
        f"Measured on {about['date']} on {about['device']}; {versions}. "
        f"{about['rounds']} rounds, in which all took turns.\n"
    ]
    for workload in results["workloads"].values():
        gigabytes = workload["copy_bytes_per_second"] / 1e9
        parts.append(
            f"**{workload['title']}**: {workload['parameters']:,} parameters in "
            f"{workload['leaves']} leaves; a copy in place runs at {gigabytes:.1f} "
            f"GB/s; other programs used {workload['others_busy']:.0%} of the CPUs."
            f"\n\n{workload_table(workload)}\n"
        )
        if workload["missing"]:
            names: dict[str, list[str]] = {}
            for name, reason in workload["missing"].items():
                names.setdefault(reason, []).append(f"`{name}`")
            left_out = [f"- {', '.join(n)}: {reason}" for reason, n in names.items()]
            parts.append("\n".join(["Not measured:\n", *left_out, ""]))
    parts.append(
        "**Time per parameter**, nanoseconds, one array:\n\n"
        f"{scaling_table(results['scaling'])}\n"
    )
    return "\n".join(parts)


def summary(results: dict[str, Any]) -> str:
    """The ratios that the README shows."""
    about, workloads = results["about"], results["workloads"]
    shown = [
        name
        for name in SUMMARIZED
        if any(name in workload["subjects"] for workload in workloads.values())
    ]
    rows = [
        (
            workload["title"],
            *(
                f"{workload['subjects'][name]['ratio']:.2f}"
                if name in workload["subjects"]
                else ""
                for name in shown
            ),
        )
        for workload in workloads.values()
    ]
    return (
        f"{table((f'time of a step / {REFERENCE}', *shown), rows)}\n\n"
        f"{about['device']}, {about['date']}, medians of {about['rounds']} rounds.\n"
    )


def workload_table(workload: dict[str, Any]) -> str:
    """Every subject of a workload."""
    rows = []
    for name, found in workload["subjects"].items():
        low, high = found["ratio_quartiles"]
        timing = (
            f"{found['ms']:.3g}",
            f"{found['ratio']:.2f}",
            f"{low:.2f}–{high:.2f}",
        )
        if "bytes" not in found:
            rows.append((name, *timing, "", "", "", "", "", ""))
            continue
        rate = found["bytes"] * workload["parameters"] / (found["ms"] / 1e3)
        rows.append(
            (
                name,
                *timing,
                f"{found['bytes']:.1f}",
                f"{found['temporaries']:.1f}",
                f"{found['state_bytes']:.1f}",
                f"{rate / workload['copy_bytes_per_second']:.0%}",
                f"{found['kernels']}",
                f"{found['compile_seconds']:.1f}",
            )
        )
    head = (
        "step",
        "ms",
        "ratio",
        "quartiles",
        "bytes",
        "scratch",
        "state",
        "rate",
        "kernels",
        "compile",
    )
    return table(head, rows)


def scaling_table(points: list[dict[str, Any]]) -> str:
    """The time per parameter at every size."""
    names = list(points[0]["ns"])
    return table(
        ("elements", *names),
        [
            (
                f"{point['elements']:,}",
                *(f"{point['ns'][n]:.3f}" if n in point["ns"] else "" for n in names),
            )
            for point in points
        ],
    )


def save_picture(path: Path, results: dict[str, Any]) -> None:
    """Draw the ratios above and the scaling below."""
    # Here, because a machine that only measures may not have it.
    from matplotlib.figure import Figure

    # Figure, and not pyplot: no display is needed and no global state is left.
    figure = Figure(figsize=(9, 10), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(2, 1))
    draw_ratios(above, results["workloads"])
    draw_scaling(below, results["scaling"])
    for ax in (above, below):
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=10)
    figure.suptitle(f"{results['about']['device']}, {results['about']['date']}")
    figure.savefig(path, dpi=110)


def draw_ratios(ax: Any, workloads: dict[str, Any]) -> None:
    """Draw a row of points for each subject, one for each workload."""
    names = list(next(iter(workloads.values()))["subjects"])
    for workload in workloads.values():
        names += [name for name in workload["subjects"] if name not in names]
    markers = dict(zip(workloads, "osD^v", strict=False))
    colours = dict(
        zip(workloads, ("#0072B2", "#D55E00", "#009E73", "#AA4499"), strict=False)
    )
    for key, workload in workloads.items():
        shown = [name for name in names if name in workload["subjects"]]
        ax.semilogx(
            [workload["subjects"][name]["ratio"] for name in shown],
            [names.index(name) for name in shown],
            markers[key],
            color=colours[key],
            label=workload["title"],
            alpha=0.85,
        )
    ax.axvline(1, color="#222222", linewidth=1)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    ax.set_xlabel(f"time of a step over that of {REFERENCE}", fontsize=11)
    ax.set_title("Left of the line is faster", fontsize=12)
    ax.legend(frameon=True, fontsize=9)


def draw_scaling(ax: Any, points: list[dict[str, Any]]) -> None:
    """Draw the time per parameter over the size."""
    for (name, colour), marker in zip(COLOURS.items(), "sov", strict=True):
        shown = [point for point in points if name in point["ns"]]
        ax.loglog(
            [point["elements"] for point in shown],
            [point["ns"][name] for point in shown],
            f"{marker}-",
            color=colour,
            label=name,
        )
    ax.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
    ax.yaxis.set_minor_formatter(lambda y, _: "")
    ax.set_xlabel("elements of one array", fontsize=11)
    ax.set_ylabel("nanoseconds per parameter", fontsize=11)
    ax.set_title("Beyond the caches the cost is flat", fontsize=12)
    ax.legend(frameon=False, fontsize=10)
