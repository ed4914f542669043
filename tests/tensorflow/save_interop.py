"""Save half-finished runs of this package, for `record_interop.py` to continue.

Run it where this package is installed, from the root of the repository, between two
runs of the other program::

    .venv-tensorflow/bin/python tests/tensorflow/record_interop.py
    python -m tests.tensorflow.save_interop
    .venv-tensorflow/bin/python tests/tensorflow/record_interop.py

A run begins with what Keras left in `<optimizer>_from.npz` and takes its gradients
backwards. `<optimizer>_ours.npz` has, in its middle, `params|*`; `weights|i`, what
`to_keras` makes of the state; and `gradients|*`, those of the steps that are left.
"""

from pathlib import Path
from typing import Any

import numpy as np
import optax

import adamax_optax as ao
from tests.interop.runs import run

DATA = Path(__file__).resolve().parents[1] / "data" / "tensorflow"
OPTIMIZERS = ("legacy", "tf_keras")
MIDDLE = 7

Arrays = dict[str, np.ndarray]


def load(name: str) -> dict[str, Arrays]:
    """Return the collections of a recorded file, by their names."""
    collections: dict[str, Arrays] = {}
    with np.load(DATA / f"{name}.npz") as file:
        for path, array in file.items():
            collection, _, key = path.partition("|")
            collections.setdefault(collection, {})[key] = array
    return collections


def transformation() -> optax.GradientTransformation:
    """Return ours with the hyperparameters of `record_interop.py`."""
    return ao.adamax(0.05, 0.85, 0.99, eps=0.0, eps_outside=1e-2)


def steps_of(gradients: Arrays) -> list[list[np.ndarray]]:
    """Return the gradients of each step, in the order of the variables."""
    return [list(step) for step in zip(*gradients.values(), strict=True)]


def ours(optimizer: str) -> tuple[Any, Any, Arrays]:
    """Return parameters and state in the middle of a run, and the later gradients."""
    recorded = load(f"{optimizer}_from")
    backwards = {name: array[::-1] for name, array in recorded["gradients"].items()}
    tx, params = transformation(), list(recorded["params"].values())
    state = tx.init(params)
    params, state = run(tx, params, state, steps_of(backwards)[:MIDDLE])
    return params, state, {name: array[MIDDLE:] for name, array in backwards.items()}


def main() -> None:
    """Save both runs."""
    for optimizer in OPTIMIZERS:
        params, state, later = ours(optimizer)
        recorded = load(f"{optimizer}_from")
        weights = ao.interop.to_keras(state, recorded["variables"])
        arrays: dict[str, Any] = {
            f"weights|{i}": array for i, array in enumerate(weights)
        }
        for name, param in zip(later, params, strict=True):
            arrays[f"params|{name}"] = np.asarray(param)
            arrays[f"gradients|{name}"] = later[name]
        np.savez_compressed(DATA / f"{optimizer}_ours.npz", **arrays)


if __name__ == "__main__":
    main()
