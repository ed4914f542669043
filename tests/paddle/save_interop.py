"""Save a half-finished run of this package, for `record_interop.py` to continue.

Run it where this package is installed, from the root of the repository, between two
runs of the other program::

    .venv-paddle/bin/python tests/paddle/record_interop.py
    python -m tests.paddle.save_interop
    .venv-paddle/bin/python tests/paddle/record_interop.py

The run begins with what PaddlePaddle left in `interop_from.npz` and takes its gradients
backwards. `interop_ours.npz` has, in its middle, `params|*`; `state|*`, what
`to_paddle` makes of the state; and `gradients|*`, those of the steps that are left.
"""

from pathlib import Path
from typing import Any

import numpy as np
import optax

import adamax_optax as ao
from tests.interop.runs import from_flax, run, to_flax
from tests.numbers.test_rules import NAMESPACE

DATA = Path(__file__).resolve().parents[1] / "data" / "paddle"
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
    """Return the page's optimizer with the numbers of `record_interop.py`."""
    return NAMESPACE["paddle_adamax"](0.05, 0.85, 0.99, 1e-2, 0.1)


# PaddlePaddle's linear layers have Flax's layout, which `to_flax` expects of none.
def in_flax(arrays: Arrays) -> Any:
    """Return PaddlePaddle's arrays as Flax's tree."""
    return to_flax({**arrays, "fc.weight": arrays["fc.weight"].T})


def in_paddle(tree: Any) -> Arrays:
    """Return Flax's tree as PaddlePaddle's arrays."""
    arrays = from_flax(tree)
    return {**arrays, "fc.weight": arrays["fc.weight"].T}


def convert_to_flax(name: str, x: np.ndarray) -> np.ndarray:
    """Convert a kernel, as `docs/interop.md` does."""
    return ao.interop.kernels_to_flax(name, x) if x.ndim > 2 else x


def convert_from_flax(name: str, x: np.ndarray) -> np.ndarray:
    """Convert a kernel back."""
    return ao.interop.kernels_from_flax(name, x) if x.ndim > 2 else x


def names() -> dict[str, str]:
    """Return the name in the network of each of PaddlePaddle's parameters."""
    return {key: str(name) for key, name in load("interop_from")["names"].items()}


def steps_of(gradients: Arrays) -> list[Any]:
    """Return the gradients of each step as Flax's trees."""
    count = len(gradients["fc.bias"])
    return [in_flax({k: v[i] for k, v in gradients.items()}) for i in range(count)]


def ours() -> tuple[Any, Any, Arrays]:
    """Return parameters and state in the middle of a run, and the later gradients."""
    recorded = load("interop_from")
    backwards = {name: array[::-1] for name, array in recorded["gradients"].items()}
    tx, params = transformation(), in_flax(recorded["params"])
    params, state = run(tx, params, tx.init(params), steps_of(backwards)[:MIDDLE])
    return params, state, {name: array[MIDDLE:] for name, array in backwards.items()}


def main() -> None:
    """Save the run."""
    params, state, later = ours()
    saved = ao.interop.to_paddle(
        state, order=names(), convert=convert_from_flax, b1=0.85
    )
    arrays: dict[str, Any] = {f"state|{name}": array for name, array in saved.items()}
    arrays |= {f"params|{name}": array for name, array in in_paddle(params).items()}
    arrays |= {f"gradients|{name}": array for name, array in later.items()}
    np.savez_compressed(DATA / "interop_ours.npz", **arrays)


if __name__ == "__main__":
    main()
