"""Save half-finished runs of this package, for `record_interop.py` to continue.

Run it where this package is installed, from the root of the repository, and then the
other program where MindSpore is::

    python -m tests.mindspore.save_interop
    .venv-mindspore/bin/python tests/mindspore/record_interop.py

It writes `<case>_ours.npz` into `tests/data/mindspore/interop/`: `checkpoint/*`, the
parameters and what `to_mindspore` makes of the state after MIDDLE steps, and
`gradients/*`, those of the steps after that. The tests repeat the run, continue it and
compare the end with MindSpore's.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import adamax_optax as ao
from tests.interop.runs import draw, from_flax, run, to_flax

DATA = Path(__file__).resolve().parents[1] / "data" / "mindspore" / "interop"
STEPS = 24
MIDDLE = 10

# Of `interop.runs.SHAPES`, where MindSpore's words are not PyTorch's.
MINDSPORE = {
    "norm.weight": "norm.gamma",
    "norm.bias": "norm.beta",
    "emb.weight": "emb.embedding_table",
}

Arrays = dict[str, Any]


def transformation(case: str) -> optax.GradientTransformation:
    """Return ours for a case of `record_interop.py`, with its hyperparameters."""
    if case == "experimental":
        return ao.adamax(0.05, 0.85, 0.99, 1e-6, 0.1)
    if case == "nn_adamax":
        return ao.adamax(0.05, 0.85, 0.99, eps=0.0, eps_outside=1e-2)
    parts: Any = {
        "kernels": ao.adamax(0.1, 0.8, 0.95, 1e-6, 0.2),
        "rest": ao.adamax(0.02, eps=1e-6, maximize=True),
    }
    return optax.partition(
        parts,
        lambda params: jax.tree.map(
            lambda p: "kernels" if p.ndim > 1 else "rest", params
        ),
    )


CASES = ("experimental", "groups", "nn_adamax")


def ours(case: str) -> tuple[Any, Any, list[Any]]:
    """Return parameters and state of a run in its middle, and the later gradients."""
    params, gradients = draw(seed=2, steps=STEPS)
    tx, start = transformation(case), to_flax(params)
    trees = list(map(to_flax, gradients))
    middle, state = run(tx, start, tx.init(start), trees[:MIDDLE])
    return middle, state, trees[MIDDLE:]


def checkpoint(case: str, params: Any, state: Any) -> Arrays:
    """Return the checkpoint from which MindSpore is to continue."""
    values = in_mindspore(params)
    return values | ao.interop.to_mindspore(
        state,
        order=list(values),
        convert=ao.interop.kernels_from_flax,
        nn_adamax=case == "nn_adamax",
        b1=0.85,
    )


def in_mindspore(tree: Any) -> Arrays:
    """Return Flax's tree as MindSpore's arrays."""
    return {MINDSPORE.get(k, k): array for k, array in from_flax(tree).items()}


def main() -> None:
    """Save all cases."""
    for case in CASES:
        params, state, gradients = ours(case)
        later = list(map(in_mindspore, gradients))
        arrays = {
            f"checkpoint/{k}": v for k, v in checkpoint(case, params, state).items()
        }
        for name in later[0]:
            arrays[f"gradients/{name}"] = np.stack([values[name] for values in later])
        np.savez_compressed(DATA / f"{case}_ours.npz", **arrays)


if __name__ == "__main__":
    main()
