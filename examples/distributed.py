"""Train LeNet-5 in several processes with Adamax, and compare with one process.

The processes run on this machine and meet over loopback by `jax.distributed`, as they
would on many machines. Each takes its part of every batch; JAX averages the gradients.

    python examples/distributed.py
    python examples/distributed.py --processes 4 --zero --state-dtype uint16
"""

import argparse
import contextlib
import functools
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from digits import Data, batches, load_data
from flax.training.train_state import TrainState
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from lenet5 import Epoch, LeNet5, checked, predict, train_step
from rich.console import Console
from rich.table import Table

import adamax_optax as ao

# Sums over the parts of a batch round differently from the sum over all of it. In
# float32 training amplifies that to 1e-5 and more, where a small fault could hide.
DTYPE = np.float64
TOLERANCE = 1e-8


def create_state(args: argparse.Namespace, mesh: Mesh) -> TrainState:
    """Put the parameters on all devices, and the state too or in parts (`--zero`)."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    model = LeNet5()
    dtype = None if args.state_dtype == "none" else jnp.dtype(args.state_dtype)
    tx = ao.adamax(args.lr, weight_decay=args.weight_decay, state_dtype=dtype)

    def init(key: jax.Array) -> Any:
        params = model.init(key, jnp.zeros((1, 32, 32, 1)))["params"]
        return jax.tree.map(lambda p: p.astype(DTYPE), params)

    params = jax.jit(init, out_shardings=everywhere)(jax.random.key(args.seed))
    shardings = ao.state_shardings(tx, params, axis="data" if args.zero else None)
    return TrainState(
        step=jax.device_put(np.int32(0), everywhere),
        apply_fn=model.apply,
        params=params,
        tx=tx,
        opt_state=jax.jit(tx.init, out_shardings=shardings)(params),
    )


def train(
    args: argparse.Namespace, data: Data, report: Callable[[str], None]
) -> dict[str, Any]:
    """Train on the devices of all processes; return the results."""
    # The first device of each process, on one axis. In this mode of it XLA finds out by
    # itself what must be communicated.
    devices = np.array(jax.devices()).reshape(jax.process_count(), -1)[:, 0]
    mesh = Mesh(devices, ("data",), axis_types=(AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    rows = NamedSharding(mesh, PartitionSpec("data"))
    state = create_state(args, mesh)
    # New parameters and state go where the old ones are.
    places = jax.tree.map(lambda x: x.sharding, state)
    step_fn = jax.jit(train_step, out_shardings=(places, None), donate_argnums=0)
    predict_fn = jax.jit(predict, out_shardings=everywhere)

    rng, key = np.random.default_rng(args.seed), jax.random.key(args.seed + 1)
    share = args.batch_size // jax.process_count()
    first = jax.process_index() * share
    begin = time.perf_counter()
    for epoch in range(1, args.epochs + 1):
        start, metrics = time.perf_counter(), []
        # All processes draw the same batches. Each passes its own rows on.
        for images, labels in batches(data, args.batch_size, rng):
            own = slice(first, first + share)
            batch = images[own].astype(DTYPE), labels[own]
            placed = [jax.make_array_from_process_local_data(rows, x) for x in batch]
            state, step_metrics = step_fn(state, *placed, key)
            metrics.append(step_metrics)
        loss, accuracy = np.mean(jax.device_get(metrics), axis=0)
        right = predict_fn(state, data.test_images).argmax(-1) == data.test_labels
        seconds = time.perf_counter() - start
        done = Epoch(*map(float, (loss, accuracy, right.mean(), seconds)))
        report(f"epoch {epoch:{len(str(args.epochs))}}  {done}")
    own_state = [
        x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state.opt_state)
    ]
    return {
        **{f"param {i}": x for i, x in enumerate(jax.tree.leaves(state.params))},
        "steps": state.step,
        "devices": mesh.size,
        "bytes": sum(own_state),
        "loss": done.train_loss,
        "accuracy": done.test_accuracy,
        "seconds": time.perf_counter() - begin,
    }


def work(args: argparse.Namespace) -> None:
    """Be one of the processes. The first one reports, and saves the outcome."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # The libraries below write to stdout as well: that joins stderr, in the log.
    reports = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        jax.distributed.initialize(
            args.coordinator, args.processes, args.worker, initialization_timeout=60
        )
        first = args.worker == 0
        data = load_data(args.seed)
        report = functools.partial(print, file=reports) if first else lambda line: None
        result = train(args, data, report)
        if first:
            np.savez(args.result, **result)
        jax.distributed.shutdown()
    except BaseException:
        # Not an ordinary exit, which would wait for the other processes.
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns when the parent is gone, however it ended
    os._exit(1)


class ProcessFailed(Exception):
    """One of the processes has ended with an error."""


def run_all(commands: Sequence[Sequence[str]], logs: Path) -> None:
    """Run commands side by side until all have ended; none outlives this call.

    Args:
      commands: The commands. The first one writes to our stdout.
      logs: Folder for what they write besides.

    Raises:
      ProcessFailed: If one fails, with the end of its log. The others are stopped.
    """
    with contextlib.ExitStack() as stack:
        processes: list[subprocess.Popen] = []
        stack.callback(_stop, processes)
        for i, command in enumerate(commands):
            log = stack.enter_context((logs / f"{i}.log").open("w"))
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=None if i == 0 else log,
                stderr=log,
                env={**os.environ, "JAX_PLATFORMS": "cpu"},
                # Ctrl-C is for us to deal with.
                start_new_session=True,
            )
            processes.append(process)
        while True:
            statuses = [process.poll() for process in processes]
            for i, status in enumerate(statuses):
                if status:
                    end = (logs / f"{i}.log").read_text().splitlines()[-20:]
                    raise ProcessFailed(
                        f"process {i} ended with status {status}, so all were stopped. "
                        "The last that it wrote:\n" + "\n".join(end)
                    )
            if None not in statuses:
                return
            time.sleep(0.05)


def _stop(processes: Sequence[subprocess.Popen]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
        if process.stdin:
            process.stdin.close()


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def train_in_processes(args: argparse.Namespace, argv: Sequence[str]) -> Any:
    """Run this script once more for each process, and return their results."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.npz"
        command = [
            *(sys.executable, __file__, *argv),
            *("--result", str(result), "--coordinator", f"127.0.0.1:{free_port()}"),
        ]
        workers = [[*command, "--worker", str(i)] for i in range(args.processes)]
        run_all(workers, Path(folder))
        with np.load(result) as arrays:
            return dict(arrays)


def largest_difference(one: dict[str, Any], many: dict[str, Any]) -> float:
    """Return how far two runs' parameters are apart at most."""
    names = [name for name in one if name.startswith("param ")]
    return max(float(np.abs(one[name] - many[name]).max()) for name in names)


def summary(one: dict[str, Any], many: dict[str, Any], processes: int) -> Table:
    """Put two runs side by side."""
    table = Table("", "1 process", f"{processes} processes")
    for row, name, form in [
        ("devices", "devices", "d"),
        ("steps", "steps", ",d"),
        ("train loss", "loss", ".6f"),
        ("test accuracy", "accuracy", ".4f"),
        ("bytes of state on a device", "bytes", ",d"),
        ("seconds", "seconds", ".1f"),
    ]:
        # NumPy saves numbers as arrays.
        values = (np.asarray(run[name]).item() for run in (one, many))
        table.add_row(row, *(format(value, form) for value in values))
    return table


def build_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    positive = checked(float, lambda x: 0 < x < math.inf, "above 0 and finite")
    not_negative = checked(float, lambda x: 0 <= x < math.inf, "0 or more and finite")
    count = checked(int, lambda n: n >= 1, "at least 1")
    several = checked(int, lambda n: n >= 2, "at least 2")
    seed = checked(int, lambda n: 0 <= n < 2**32 - 1, "from 0 to 2**32 - 2")
    forms = ("none", "bfloat16", "float16", "uint16")
    add = parser.add_argument
    add("--processes", type=several, default=2, help="number of processes")
    add("--epochs", type=count, default=5, help="passes over the training set")
    add("--batch-size", type=count, default=64, help="images in a step, in all")
    add("--lr", type=positive, default=2e-3, help="learning rate")
    add("--weight-decay", type=not_negative, default=1e-4, help="coupled L2")
    add("--state-dtype", choices=forms, default="none", help="how to keep the moments")
    add("--zero", action="store_true", help="divide the state among the processes")
    add("--seed", type=seed, default=0, help="of the split, weights and order")
    # For the processes that this one starts.
    for name, kind in [("--worker", int), ("--coordinator", str), ("--result", Path)]:
        add(name, type=kind, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train in several processes, then in this one, and compare."""
    argv = sys.argv[1:] if argv is None else argv
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.batch_size % args.processes:
        fitting = -(-args.batch_size // args.processes) * args.processes
        parser.error(
            f"argument --batch-size: must be a multiple of the {args.processes} "
            f"processes, such as {fitting}, got {args.batch_size}"
        )
    jax.config.update("jax_platforms", "cpu")
    # Before anything is computed: the images too depend on it, in their last bits.
    jax.config.update("jax_enable_x64", True)
    if args.worker is not None:
        work(args)
        return
    data = load_data(args.seed)
    if args.batch_size > len(data.train_labels):
        parser.error(
            f"argument --batch-size: must be at most {len(data.train_labels)}, "
            f"the size of the training set, got {args.batch_size}"
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    share = args.batch_size // args.processes
    try:
        print(
            f"{args.processes} processes, {share} images of each batch for each",
            flush=True,
        )
        many = train_in_processes(args, argv)
        print(f"1 process, {args.batch_size} images of each batch", flush=True)
        one = train(args, data, print)
    except ProcessFailed as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted: all processes were stopped", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)

    Console(highlight=False).print(summary(one, many, args.processes))
    difference = largest_difference(one, many)
    if not difference <= TOLERANCE:  # or NaN
        sys.exit(f"error: the parameters differ, by up to {difference:.2g}")
    print(f"the same parameters: none differs by more than {difference:.1g}")


if __name__ == "__main__":
    main()
