"""`examples/checkpointing.py`: killed at any moment, it ends with the same bits."""

import contextlib
import importlib
import io
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

import adamax_optax as ao

EXAMPLES = Path(__file__).parents[2] / "examples"
# When to kill each life, in turn. The uint16 state rounds at random at each step, so
# only the right bits continue like the undisturbed run.
MOMENTS = ["start", *["writing", "anywhere", "start", "anywhere", "writing"] * 4]
FOREVER = 10**6


@pytest.fixture(scope="module")
def example():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield importlib.import_module("checkpointing")


@pytest.fixture(scope="module")
def processes(example, tmp_path_factory):
    """Return where processes come from that have imported everything, and no more.

    They share compiled programs too: what is killed is starting, stepping and saving.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([example.__name__, __name__])
    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.mktemp("compiled"))
        patch.setenv("JAX_COMPILATION_CACHE_DIR", folder)
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        yield context


def be_the_example(pipe, words):
    """Be the example with these options, its output going into a pipe."""
    os.dup2(pipe.fileno(), 1)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    importlib.import_module("checkpointing").main(words)
    sys.stdout.flush()


@contextlib.contextmanager
def start(processes, directory, *, steps, save_every):
    """Start the example in a process of its own; yield that and its output."""
    options = {"steps": steps, "save-every": save_every, "directory": directory}
    words = ["--state-dtype=uint16", *(f"--{k}={v}" for k, v in options.items())]
    receiver, sender = processes.Pipe(duplex=False)
    process = processes.Process(target=be_the_example, args=(sender, words))
    process.start()
    sender.close()
    try:
        with open(receiver.fileno(), closefd=False) as output:
            yield process, output
    finally:
        process.kill()
        process.join()
        receiver.close()


def newest(directory):
    """Return the newest complete checkpoint's step, by its name; 0 without any.

    Orbax gives a checkpoint its name by renaming it when all of it is written.
    """
    return max([int(x) for x in os.listdir(directory) if x.isdigit()], default=0)


def half_written(directory):
    return [x for x in os.listdir(directory) if "orbax-checkpoint-tmp" in x]


class Life(NamedTuple):
    """What a process did before it was killed."""

    resumed: int | None  # the step, unless killed before it was printed
    last: int | None  # the last step that was printed
    writing: bool  # whether half a checkpoint was left
    startup: float  # seconds until it was killed or had printed its first line


def live(processes, directory, moment, rng, startup):
    """Start the run, kill it at a moment and return what it did."""
    begin = time.perf_counter()
    with start(processes, directory, steps=FOREVER, save_every=1) as (process, output):
        lines = []
        if moment == "start":
            time.sleep(rng.uniform(0, startup))
        else:
            lines.append(output.readline())
            startup = time.perf_counter() - begin
            for _ in range(rng.integers(2, 5)):
                begin = time.perf_counter()
                lines.append(output.readline())
            if moment == "writing":
                while process.is_alive() and not half_written(directory):
                    time.sleep(0.0005)
            # Within one step as this machine has just taken it, its saving included.
            time.sleep(rng.uniform(0, time.perf_counter() - begin))
        process.kill()
        lines += output.readlines()
    assert process.exitcode == -signal.SIGKILL
    return Life(*read(lines), bool(half_written(directory)), startup)


def read(lines):
    """Return the step that a run went on from, and the last one that it printed."""
    if not lines:
        return None, None
    resumed = 0 if lines[0] == "from the start\n" else int(lines[0].split()[-1])
    steps = [int(line.split()[1]) for line in lines if line.startswith("step")]
    return resumed, steps[-1] if steps else None


def assert_same_bits(got, expected):
    def compare(a, b):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()

    jax.tree.map(compare, got, expected)


def last_state(example, directory, state_dtype):
    """Return the state in the newest checkpoint."""
    target = example.init(ao.adamax(state_dtype=state_dtype))
    with ocp.CheckpointManager(directory) as manager:
        step = manager.latest_step()
        return manager.restore(step, args=ocp.args.StandardRestore(target))


@pytest.mark.slow
def test_killed_run_ends_with_the_bits_of_an_undisturbed_one(
    example, processes, tmp_path
):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    killed.mkdir()
    rng = np.random.default_rng(0)  # what it hits differs from machine to machine
    lives, startup = [], 1.0
    for moment in MOMENTS:
        before = newest(killed)
        lives.append(live(processes, killed, moment, rng, startup))
        *_, (resumed, last, _, startup) = lives
        assert resumed in (None, before)
        # What was printed last may not be written yet; the one before it is.
        assert newest(killed) >= max(before, (last or 0) - 1)
    assert len(lives) > 20
    assert sum(life.writing for life in lives) >= 5, lives

    steps = newest(killed) + 5
    with (
        start(processes, killed, steps=steps, save_every=1) as (_, ours),
        start(processes, undisturbed, steps=steps, save_every=steps) as (_, theirs),
    ):
        outputs = [output.read().splitlines() for output in (ours, theirs)]
    assert outputs[0][0] == f"resuming from step {steps - 5}"
    assert outputs[1][0] == "from the start"
    assert outputs[0][-2:] == outputs[1][-2:]  # the last loss and the accuracy
    assert not half_written(killed)
    assert_same_bits(
        last_state(example, killed, "uint16"),
        last_state(example, undisturbed, "uint16"),
    )


def run(example, directory, *options):
    with contextlib.redirect_stdout(io.StringIO()) as stdout:
        example.main(["--directory", str(directory), *options])
    return stdout.getvalue().splitlines()


@pytest.mark.slow
def test_goes_on_where_it_stopped(example, tmp_path):
    first = run(example, tmp_path / "a", "--steps", "12", "--save-every", "5")
    assert first[0] == "from the start"
    assert [int(line.split()[1]) for line in first[1:-1]] == [1, 5, 10, 12]
    second = run(example, tmp_path / "a", "--steps", "300", "--save-every", "90")
    assert second[0] == "resuming from step 12"
    straight = run(example, tmp_path / "b", "--steps", "300", "--save-every", "300")
    assert straight[-2:] == second[-2:]  # the loss and the accuracy
    assert float(straight[-1].removeprefix("test accuracy ")) > 0.85
    assert_same_bits(
        last_state(example, tmp_path / "a", None),
        last_state(example, tmp_path / "b", None),
    )
    # Nothing is left to do.
    third = run(example, tmp_path / "a", "--steps", "300")
    assert third == ["resuming from step 300", straight[-1]]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--steps", "0", "must be at least 1, got 0"),
        ("--save-every", "0.5", "invalid count value: '0.5'"),
        ("--state-dtype", "int8", "invalid choice: 'int8'"),
    ],
)
def test_bad_options_are_refused(example, capsys, option, value, message):
    with pytest.raises(SystemExit) as stop:
        example.main([option, value])
    assert stop.value.code == 2
    assert f"error: argument {option}: {message}" in capsys.readouterr().err
