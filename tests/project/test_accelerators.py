"""What `make accelerators` reads from a compiler's text, and what it reports."""

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
RESULTS = json.loads((BENCHMARKS / "results" / "accelerators.json").read_text())


@pytest.fixture(scope="module")
def program():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("accelerators_program")


@pytest.fixture(scope="module")
def tables(program):
    return importlib.import_module("accelerators_report")


TEXTS = ROOT / "tests" / "data" / "accelerators"
# Shortened from what the compilers wrote.
H100 = (TEXTS / "h100.txt").read_text()

V5E = (TEXTS / "v5e.txt").read_text()


def test_gpu_program(program):
    found = program.read(H100, small=2)
    assert (found.kernels, found.small) == (2, 1)
    step = 4 * 1000 + 4 + 2 * 1000 + (4 + 2) * 1000  # the fusion on the arrays
    part = 125 * 4 + 4 + 125 * 4  # reads an eighth
    assert found.bytes == (4 + 4) + step + part
    assert found.collectives == {"all-gather": 1}
    assert found.received == 4 * 1040


def test_tpu_program(program):
    found = program.read(V5E)
    # The sum and the copy; between memory and chip, only copies move bytes.
    assert (found.kernels, found.small) == (2, 0)
    assert found.bytes == 3 * 4 * 96 * 768
    assert found.collectives == {"all-gather": 1, "all-reduce": 1}
    assert found.received == 4 * 768 * 768 + 4 * 2


def test_small_is_what_one_says(program):
    assert program.read(H100, small=1000).small == 3


@pytest.mark.parametrize("operation", ["call", "while", "custom-call", "async-start"])
def test_what_cannot_be_read_is_refused(program, operation):
    text = V5E.replace(" copy(%fusion)", f" {operation}(%fusion)")
    with pytest.raises(ValueError, match=f"Cannot tell how many bytes.*{operation}"):
        program.read(text)
    with pytest.raises(ValueError, match="Cannot read the instruction: ROOT"):
        program.read(V5E.replace("ROOT %copy.1 = ", "ROOT "))


def test_committed_results():
    """Large arrays are one kernel, at the least bytes that a step can move."""
    array, leaves = RESULTS["one device"]
    assert array["parameters"] == 1 << 24
    least = {"optax.adamax": 28, "ours": 28, "ours, decay": 28} | {
        f"ours, {name}": 12 + 2 * size
        for name, size in {
            **{"bfloat16": 4, "float16": 4},
            **{"uint16": 2, "uint16, decay": 2},
        }.items()
    }
    assert set(array["steps"]) == set(least)
    for form, bytes_each in least.items():
        for found in array["steps"][form].values():
            assert found["kernels"] == 1
            assert found["bytes"] / array["parameters"] == pytest.approx(
                bytes_each, abs=0.005
            )
            assert found["temporaries"] < 0.005 * array["parameters"]
    assert leaves["steps"]["ours"]["H100"]["kernels"] == leaves["leaves"]
    for form, targets in RESULTS["mesh"]["steps"].items():
        for found in targets.values():
            assert bool(found["collectives"]) == ("ZeRO-1" in form)


def test_page_shows_the_committed_results(tables):
    page = (ROOT / "docs" / "speed.md").read_text()
    figures = page.partition(tables.BEGIN)[2].partition(tables.END)[0]
    assert figures.strip() == tables.markdown(RESULTS).strip()


def test_readme_says_what_was_compiled():
    array = RESULTS["one device"][0]
    said = {
        form: {
            (found["kernels"], round(found["bytes"] / array["parameters"]))
            for found in array["steps"][form].values()
        }
        for form in ("ours", "ours, uint16")
    }
    ((one, plain),) = said["ours"]
    ((also_one, word),) = said["ours, uint16"]
    assert one == also_one == 1
    text = " ".join((ROOT / "README.md").read_text().split())
    assert (
        "an H100 and a TPU v5e, the step of each large array compiles to one kernel of "
        f"{plain} bytes per parameter (uint16: {word})."
    ) in text
