"""The faults of `make faults` can be planted: their lines and tests are still there."""

from pathlib import Path

import pytest

import adamax_optax
from tests.plant_faults import FAULTS, place

PACKAGE = Path(adamax_optax.__file__).parent
TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("name", FAULTS)
def test_fault_has_one_place_and_tests(name):
    fault = FAULTS[name]
    assert place(fault, PACKAGE)
    assert fault.old != fault.new
    assert all((TESTS / test).is_file() for test in fault.tests.split())
