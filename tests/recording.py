"""What the scripts that record other libraries' Adamax share; needs only NumPy."""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

STEPS = 60
SHAPES = ((5, 3), (3,))

# A run of one parameter: given the settings, the initial value and the gradients, it
# returns the value after each step.
Run = Callable[[Mapping[str, Any], np.ndarray, np.ndarray], Iterable[np.ndarray]]
Record = Callable[[str, Mapping[str, Any]], dict[str, np.ndarray]]


def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return a gradient for each step: of mixed size, one element in eight 0.

    No first gradient is 0, since the paper's rule would divide 0 by 0. None is so small
    that the decay outweighs it; see `tests/running.py`.
    """
    gradients = rng.standard_normal((STEPS, *shape)) * 10.0 ** rng.uniform(-1, 1, shape)
    gradients[1:] *= rng.random((STEPS - 1, *shape)) > 0.125
    return gradients.astype(np.float32)


def record_leaves(run: Run) -> Record:
    """Return the `record` of `record_all` that runs each of `SHAPES` by itself."""

    def record(name: str, settings: Mapping[str, Any]) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(list(name.encode()))
        arrays = {}
        for i, shape in enumerate(SHAPES):
            gradients = draw(rng, shape)
            initial = rng.uniform(-1, 1, shape).astype(np.float32)
            history = [initial, *run(settings, initial, gradients)]
            arrays[f"{name}/params_{i}"] = np.stack(history)
            arrays[f"{name}/grads_{i}"] = gradients
        return arrays

    return record


def record_all(
    name: str,
    cases: Mapping[str, Any],
    record: Callable[[str, Any], dict[str, np.ndarray]],
    overview: Mapping[str, Any],
    directory: Path | None = None,
) -> None:
    """Record all cases, and write their arrays and an overview.

    Args:
      name: Folder in `tests/data`.
      cases: The cases by name.
      record: Runs a case, given its name and value, and returns its arrays.
      overview: The contents of `cases.json`.
      directory: Where to write instead of the folder; by default the command line's
        argument, if it has one.
    """
    if directory is None:
        parser = argparse.ArgumentParser(description="Record another library's Adamax.")
        default = Path(__file__).resolve().parent / "data" / name
        parser.add_argument("directory", type=Path, nargs="?", default=default)
        directory = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {}
    for key, case in cases.items():
        arrays |= record(key, case)
    np.savez_compressed(directory / "runs.npz", **arrays)
    (directory / "cases.json").write_text(json.dumps(overview, indent=1) + "\n")
