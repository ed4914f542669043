"""The faults that `make faults` plants can be planted: their lines are still there."""

import runpy
from pathlib import Path

import pytest

import adamax_optax

PACKAGE = Path(adamax_optax.__file__).parent
TESTS = Path(__file__).parent
FAULTS = runpy.run_path(str(TESTS / "plant_faults.py"))["FAULTS"]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_stands_once_in_its_file_and_has_tests(name):
    fault = FAULTS[name]
    assert (PACKAGE / fault.file).read_text().count(fault.old) == 1
    assert fault.old != fault.new
    assert all((TESTS / test).is_file() for test in fault.tests.split())
