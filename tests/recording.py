"""What the scripts that record other libraries' Adamax share; needs only NumPy."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

STEPS = 60
SHAPES = ((5, 3), (3,))


def record_all(
    name: str,
    cases: Mapping[str, Any],
    record: Callable[[str, Any], dict[str, np.ndarray]],
    overview: Mapping[str, Any],
) -> None:
    """Record all cases, and write their arrays and an overview.

    Args:
      name: Folder in `tests/data`; the first command-line argument replaces it.
      cases: The cases by name.
      record: Runs a case, given its name and value, and returns its arrays.
      overview: The contents of `cases.json`.
    """
    parser = argparse.ArgumentParser(description="Record Adamax of another library.")
    default = Path(__file__).resolve().parent / "data" / name
    parser.add_argument("directory", type=Path, nargs="?", default=default)
    directory = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {}
    for key, case in cases.items():
        arrays |= record(key, case)
    np.savez_compressed(directory / "runs.npz", **arrays)
    (directory / "cases.json").write_text(json.dumps(overview, indent=1) + "\n")
