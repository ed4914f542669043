"""Several processes by jax.distributed come to what one comes to, and end cleanly."""

import importlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.integration import many_processes

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def distributed():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "examples")  # as the script itself has it
        yield importlib.import_module("distributed")


@pytest.mark.slow
@pytest.mark.usefixtures("lenient_promotion", "shardy")
def test_two_processes_are_one_bit_for_bit(distributed, tmp_path):
    command = [sys.executable, "-m", "tests.integration.many_processes"]
    command += [str(distributed.free_port()), "2"]
    result = tmp_path / "result.npz"
    distributed.run_all(
        [[*command, str(rank), str(result)] for rank in (0, 1)], tmp_path
    )
    with np.load(result) as found:
        assert found["processes"] == 2
        expected = many_processes.results(jax.devices()[:1])
        for name, leaf in expected.items():
            # As bytes, for NumPy does not load bfloat16.
            assert found[name].tobytes() == leaf.tobytes(), name


@pytest.mark.slow
def test_the_example_divides_the_state_and_finds_no_difference(distributed):
    options = "--processes 2 --epochs 2 --batch-size 512 --state-dtype uint16 --zero"
    done = subprocess.run(
        [sys.executable, distributed.__file__, *options.split()],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    # Loss and accuracies, without the seconds.
    epochs = [line[:-8] for line in lines if line.startswith("epoch ")]
    assert len(epochs) == 4
    assert epochs[:2] == epochs[2:]
    (row,) = [line for line in lines if "bytes of state" in line]
    whole, part = (int(x.replace(",", "")) for x in re.findall(r"[\d,]{4,}", row))
    # Two bytes for each parameter; the step and the key; of each of 10 leaves the scale
    # and the bound.
    assert whole == 2 * 61_706 + 88
    assert part == 61_706 + 88
    (difference,) = re.findall(r"^the same parameters: .* than (\S+)$", lines[-1])
    assert float(difference) < 1e-8


@pytest.mark.slow
def test_interrupted_it_stops_all_its_processes(distributed):
    # Shells without job control start what is in the background deaf to Ctrl-C.
    listen = "signal.signal(signal.SIGINT, signal.SIG_DFL)"
    command = [sys.executable, distributed.__file__, "--epochs", "10000"]
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import os, signal; {listen}; os.execv({command[0]!r}, {command!r})",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout
            assert process.stdout.readline().startswith("2 processes, 32 images")
            process.send_signal(signal.SIGINT)
            # Ends when nobody can write to its stdout any more: all others are gone.
            _, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert stderr == "interrupted: all processes were stopped\n"


SLEEPER = """
import os, sys, time
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(600)
"""


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_one_that_fails_stops_the_others_and_is_quoted(distributed, tmp_path):
    pid = tmp_path / "pid"
    failing = f"""
import os, sys, time
while not (os.path.exists({str(pid)!r}) and os.path.getsize({str(pid)!r})):
    time.sleep(0.01)
print("what went wrong", file=sys.stderr)
sys.exit(3)
"""
    commands = [
        [sys.executable, "-c", SLEEPER, str(pid)],
        [sys.executable, "-c", failing],
    ]
    expected = "(?s)process 1 ended with status 3.*stopped.*what went wrong"
    with pytest.raises(distributed.ProcessFailed, match=expected):
        distributed.run_all(commands, tmp_path)
    assert gone(int(pid.read_text()))


@pytest.mark.usefixtures("x64")  # set by `main`: this fixture sets it back
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--processes 1", "argument --processes: must be at least 2, got 1"),
        (
            "--batch-size 63",
            "--batch-size: must be a multiple of the 2 processes, such",
        ),
        ("--batch-size 1438", "--batch-size: must be at most 1437, the size of the tr"),
        ("--state-dtype int8", "--state-dtype: invalid choice: 'int8'"),
        ("--lr 0", "argument --lr: must be above 0 and finite, got 0"),
    ],
)
def test_bad_options_are_refused(distributed, capsys, options, message):
    with pytest.raises(SystemExit) as stop:
        distributed.main(options.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
