"""Time the step of every form side by side with Optax, PyTorch, Keras and MindSpore.

    python benchmarks/speed.py            a quarter of an hour on two quiet cores
    python benchmarks/speed.py --quick    half a minute, to see that it runs

The subjects of a workload take turns, in a new order each round, so that whatever else
the machine does falls on all of them; what counts is the median over the rounds of the
ratio to `optax.adamax` in the same round. Where memory does not hold all at a time, the
other frameworks take turns with our fastest, and with `optax.adamax` once more. It runs
on the first device of JAX, which may be a GPU, and needs only JAX, Optax and NumPy;
PyTorch, Keras and MindSpore are compared where they are installed (`--mindspore` names
a Python of its own). Prints tables, and writes numbers and a picture to
`benchmarks/results`.
"""

import contextlib
import ctypes
import datetime
import functools
import gc
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from report import options, put_into_page, report, rounded
from speed_peers import PEERS
from speed_report import markdown, save_picture
from speed_subjects import (
    OVERHEADS,
    REFERENCE,
    STACKED,
    SUBJECTS,
    VECTORS,
    Copy,
    Subject,
)
from speed_workloads import SMALL, WORKLOADS, Workload, array

COPY = "copy"
# Seconds after which a peer that has not taken its first steps is left out. With
# thousands of leaves, all but one of the forms that take minutes to compile are too.
PATIENCE = 180
MANY = 1000
BUSY = 0.1  # share of the CPUs with other programs at which ratios are doubtful
LIGHT = 1 << 20  # parameters
ALL_TOGETHER = 400  # bytes per parameter that the subjects take, all at a time
SLOW_TO_COMPILE = {
    name
    for name in SUBJECTS
    if name.startswith("ours, ") and name not in ("ours, decay", "ours, uint16")
}
RIVALS = ("class, uint16, donate", "ours, uint16, 512 bits")  # our fastest
Makers = Mapping[str, Callable[[Workload], Subject]]
# Bytes per parameter: parameters, gradients, and the state.
PARTS = (*WORKLOADS, "scaling")
SCALED = {REFERENCE: 16, "ours": 16, "ours, uint16": 10}


class Size(NamedTuple):
    """How much to measure."""

    workloads: Mapping[str, Callable[[], Workload]]
    rounds: int
    seconds: float  # of one subject in one round, at least
    sizes: tuple[int, ...]  # of the array, for the scaling


FULL = Size(WORKLOADS, 9, 0.1, (10**5, 10**6, 10**7, 10**8, 3 * 10**8, 10**9))
QUICK = Size(SMALL, 3, 0.001, (10**4, 10**5))


class Peer(Subject):
    """A subject in a process of its own, which takes steps when told to."""

    def __init__(self, python: str, name: str, workload: Workload) -> None:
        # A pipe that nobody reads would be full of warnings one day, and stop it.
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [python, str(Path(__file__).parent / "speed_peers.py"), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=tempfile.gettempdir(),  # MindSpore leaves files there
            # Keras's JAX is to leave memory to the others.
            env={**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
            text=True,
        )
        self.compile_seconds = self._ask(
            json.dumps(list(workload.shapes.values())), PATIENCE
        )
        self._process.send_signal(signal.SIGSTOP)

    def run(self, steps: int) -> float:
        """Take some steps and return the seconds for one."""
        # Stopped in between: threads that wait for work may keep a core busy.
        self._process.send_signal(signal.SIGCONT)
        seconds = self._ask(str(steps))
        self._process.send_signal(signal.SIGSTOP)
        return seconds

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _ask(self, line: str, patience: float | None = None) -> float:
        assert self._process.stdin and self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], patience)[0]:
            self.close()
            raise RuntimeError(f"not ready after {patience} seconds")
        answer = self._process.stdout.readline()
        if not answer:
            self._errors.seek(0)
            errors = re.findall(
                r"^\w+(?:Error|Exception): .*", self._errors.read(), re.M
            )
            self.close()
            raise RuntimeError(errors[-1] if errors else "no answer")
        return float(answer)


def peers_here(mindspore: str | None) -> dict[str, str]:
    """Return the Python that runs each of the peers that are installed."""
    found = {}
    for name in PEERS:
        package = name.partition("-")[0]
        if package == "mindspore" and mindspore:
            found[name] = mindspore
        elif importlib.util.find_spec(package):
            found[name] = sys.executable
    return found


@contextlib.contextmanager
def prepared(
    workload: Workload, makers: Makers, missing: dict[str, str]
) -> Iterator[dict[str, Subject]]:
    """Compile subjects; put into `missing` why those left out cannot be measured."""
    subjects: dict[str, Subject] = {}
    with contextlib.ExitStack() as stack:
        for name, make in makers.items():
            if len(workload.shapes) > MANY and name in SLOW_TO_COMPILE:
                missing[name] = "takes minutes to compile"
                continue
            try:
                subject = subjects[name] = make(workload)
            except RuntimeError as error:
                missing[name] = str(error)
                report(f"  {name}: {error}")
                continue
            if isinstance(subject, Peer):
                stack.callback(subject.close)
            report(f"  {name}: ready in {subject.compile_seconds:.1f} s")
        yield subjects


def take_turns(subjects: Mapping[str, Subject], size: Size) -> dict[str, list[float]]:
    """Return the seconds for one step of each subject, for each round."""
    steps = {}
    for name, subject in subjects.items():
        once = min(subject.run(1) for _ in range(3))
        steps[name] = max(1, round(size.seconds / once))
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    names = list(subjects)
    rng = np.random.default_rng(0)
    # The arrays of all the others, through which it would look, are not a step's cost.
    gc.collect()
    gc.disable()
    for _ in range(size.rounds):
        rng.shuffle(names)
        for name in names:
            seconds[name].append(subjects[name].run(steps[name]))
    gc.enable()
    return seconds


def measure_workload(
    workload: Workload, size: Size, pythons: Mapping[str, str]
) -> dict[str, Any]:
    """Measure all subjects on one workload."""
    ours = dict(SUBJECTS)
    if len(workload.shapes) > MANY:
        ours |= STACKED
    elif jax.default_backend() == "cpu":
        ours |= VECTORS
    if workload.size < LIGHT:
        ours |= OVERHEADS
    peers: Makers = {n: functools.partial(Peer, p, n) for n, p in pythons.items()}
    everyone: Makers = {**ours, **peers}
    batches = [everyone]
    if ALL_TOGETHER * workload.size > free_memory():
        rivals = {name: ours.pop(name) for name in RIVALS if name in ours}
        batches = [ours, {REFERENCE: ours[REFERENCE], **rivals, **peers}]
    measured: dict[str, Any] = {}
    missing: dict[str, str] = {}
    copies: list[float] = []
    busy = [others_busy()]
    for makers in batches:
        with prepared(workload, makers, missing) as subjects:
            copy = Copy(workload)
            seconds = take_turns({**subjects, COPY: copy}, size)
            copies += seconds[COPY]
            for name, subject in subjects.items():
                found = figures(subject, seconds[name], seconds[REFERENCE], workload)
                measured.setdefault(name, found)
        del subjects, subject
        release_memory()
        busy.append(others_busy())
    if max(busy) > BUSY:
        report(f"  other programs used {max(busy):.0%} of the CPUs: measure again")
    return {
        "title": workload.title,
        "others_busy": max(busy),
        "parameters": workload.size,
        "leaves": len(workload.shapes),
        "copy_bytes_per_second": copy.bytes / float(np.median(copies)),
        "subjects": {name: measured[name] for name in everyone if name in measured},
        "missing": missing,
    }


def figures(
    subject: Subject,
    seconds: Sequence[float],
    reference: Sequence[float],
    workload: Workload,
) -> dict[str, Any]:
    """Return what is reported of one subject."""
    ratios = np.divide(seconds, reference)
    found = {
        "ms": 1e3 * float(np.median(seconds)),
        "ms_least": 1e3 * min(seconds),
        "ratio": float(np.median(ratios)),
        "ratio_quartiles": [float(np.quantile(ratios, q)) for q in (0.25, 0.75)],
        "compile_seconds": subject.compile_seconds,
    }
    if subject.program is not None:
        found |= {
            "state_bytes": subject.state_bytes / workload.size,
            "bytes": subject.program.bytes / workload.size,
            "temporaries": subject.program.temporaries / workload.size,
            "kernels": subject.program.kernels,
        }
    return found


def measure_scaling(size: Size) -> list[dict[str, Any]]:
    """Measure the time per parameter, for all sizes that memory has room for."""
    points = []
    for elements in size.sizes:
        point: dict[str, Any] = {"elements": elements, "ns": {}}
        for name, bytes_each in SCALED.items():
            if bytes_each * elements > 0.85 * free_memory():
                report(f"  {elements:,} elements: too many for the memory")
                continue
            subject = SUBJECTS[name](array(elements))
            once = subject.run(1)
            steps = max(1, round(size.seconds / once))
            seconds = [subject.run(steps) for _ in range(size.rounds)]
            point["ns"][name] = 1e9 * float(np.median(seconds)) / elements
            del subject
            gc.collect()
        report(f"  {elements:,} elements")
        points.append(point)
    return points


def free_memory() -> float:
    """Return the bytes of memory that the device has left."""
    stats = jax.devices()[0].memory_stats()
    if stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    # What files occupy counts as free: the system gives it up when it is needed.
    lines = Path("/proc/meminfo").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if "MemAvailable" in line)
    return 1024 * float(kilobytes)


def measure(size: Size, quick: bool, pythons: Mapping[str, str]) -> dict[str, Any]:
    """Measure everything that a size has."""
    workloads = {}
    for name, make in size.workloads.items():
        workload = make()
        report(f"{workload.title}, {workload.size:,} parameters")
        workloads[name] = measure_workload(workload, size, pythons)
    device = jax.devices()[0]
    return {
        "about": {
            "date": datetime.date.today().isoformat(),
            "device": device_name(),
            "platform": device.platform,
            "versions": versions(pythons),
            "quick": quick,
            "rounds": size.rounds,
        },
        "workloads": workloads,
        "scaling": measure_scaling(size),
    }


def release_memory() -> None:
    """Return what is no longer used to the system, where it would wait in the heap."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # it is of GNU's C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def others_busy(seconds: float = 1.0) -> float:
    """Return the share of the CPUs that other programs use while this one waits.

    NaN where the system does not say.
    """

    def read() -> tuple[int, int]:
        first, *_ = Path("/proc/stat").read_text().splitlines()
        times = list(map(int, first.split()[1:9]))
        idle = times[3] + times[4]
        return sum(times), idle

    try:
        total, idle = read()
        time.sleep(seconds)
        new_total, new_idle = read()
    except OSError:
        return math.nan
    return 1 - (new_idle - idle) / (new_total - total)


def device_name() -> str:
    """Return what the steps run on, in words."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    model, wide = platform.machine(), False
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line for line in lines if line.startswith("model name")]
        model = names[0].partition(": ")[2] if names else model
        wide = any("avx512f" in line for line in lines if line.startswith("flags"))
    flags = "with AVX-512" if wide else "without AVX-512"
    return f"{os.cpu_count()} cores of a CPU ({model}, {flags})"


def versions(pythons: Mapping[str, str]) -> dict[str, str]:
    """Return the versions of what is compared."""
    found = {
        name: importlib.metadata.version(name) for name in ("jax", "optax", "numpy")
    }
    for name, python in pythons.items():
        package = name.partition("-")[0]
        if package not in found:
            code = f"import importlib.metadata as m; print(m.version({package!r}))"
            found[package] = subprocess.run(
                [python, "-c", code], capture_output=True, text=True, check=True
            ).stdout.strip()
    return found


def part_of(size: Size, parts: Sequence[str]) -> Size:
    """Return a size with only some parts."""
    chosen = {k: make for k, make in size.workloads.items() if k in parts}
    return size._replace(
        workloads=chosen, sizes=size.sizes if "scaling" in parts else ()
    )


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
    return {
        "about": old["about"],
        "workloads": {**old["workloads"], **new["workloads"]},
        "scaling": new["scaling"] or old["scaling"],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write and draw."""
    parser = options(__doc__)
    add = parser.add_argument
    add(
        "--parts",
        nargs="+",
        choices=PARTS,
        help="measure these, keep the other figures",
    )
    add("--no-peers", action="store_true", help="leave PyTorch and the others out")
    add("--mindspore", metavar="PYTHON", help="the Python that has MindSpore")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    numbers = args.out / "speed.json"

    if not args.redraw:
        pythons = {} if args.no_peers else peers_here(args.mindspore)
        size = QUICK if args.quick else FULL
        if args.parts:
            size = part_of(size, args.parts)
        results = rounded(measure(size, args.quick, pythons))
        if args.parts:
            results = merged(json.loads(numbers.read_text()), results)
        numbers.write_text(json.dumps(results, indent=1) + "\n")
    results = json.loads(numbers.read_text())
    if importlib.util.find_spec("matplotlib"):
        save_picture(args.out / "speed.png", results)
    if args.page:
        put_into_page(args.page, markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
