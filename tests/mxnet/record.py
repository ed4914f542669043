"""Record trajectories of MXNet's own Adamax, to replay them without MXNet.

MXNet is no dependency of the tests: this script runs it once, in a virtual environment
of its own, and the tests read what it wrote::

    python3.11 -m venv .venv-mxnet
    .venv-mxnet/bin/pip install mxnet==1.9.1 numpy==1.23.5
    .venv-mxnet/bin/python -m tests.mxnet.record

It writes into `tests/data/mxnet/`, or into the directory given as argument, what
`tests/paddle/record.py` writes for PaddlePaddle, without the moments.

MXNet has no ε: without a gradient so far, an element becomes NaN (0 / 0), so all first
gradients here are other than 0. In version 1, `clip_gradient` comes after the decay; in
the unreleased version 2, before it.
"""

from typing import Any

import mxnet
import numpy as np

from tests.recording import SHAPES, STEPS, record_all

CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "learning_rate": {"learning_rate": 0.1},
    "betas": {"learning_rate": 0.05, "beta1": 0.7, "beta2": 0.9},
    "weight_decay": {"learning_rate": 0.05, "wd": 0.1},
    "clip_gradient": {"learning_rate": 0.05, "wd": 0.1, "clip_gradient": 0.5},
}
DEFAULTS = {"learning_rate": 0.002, "beta1": 0.9, "beta2": 0.999}


def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return a gradient for each step: of mixed size, one element in eight 0.

    None is so small that the decay outweighs it; see `tests/running.py`.
    """
    gradients = rng.standard_normal((STEPS, *shape)) * 10.0 ** rng.uniform(-1, 1, shape)
    gradients[1:] *= rng.random((STEPS - 1, *shape)) > 0.125
    return gradients.astype(np.float32)


def record(name: str, settings: dict[str, Any]) -> dict[str, np.ndarray]:
    """Run a case and return its arrays."""
    rng = np.random.default_rng(list(name.encode()))
    optimizer = mxnet.optimizer.Adamax(**settings)
    arrays = {}
    for i, shape in enumerate(SHAPES):
        gradients = draw(rng, shape)
        weight = mxnet.nd.array(rng.uniform(-1, 1, shape).astype(np.float32))
        state = optimizer.create_state(i, weight)
        history = [weight.asnumpy()]
        for gradient in gradients:
            optimizer.update(i, weight, mxnet.nd.array(gradient), state)
            history.append(weight.asnumpy())
        arrays[f"{name}/params_{i}"] = np.stack(history)
        arrays[f"{name}/grads_{i}"] = gradients
    return arrays


def main() -> None:
    """Record all cases."""
    overview = {
        "mxnet": mxnet.__version__,
        "steps": STEPS,
        "cases": {name: {**DEFAULTS, **case} for name, case in CASES.items()},
    }
    record_all("mxnet", CASES, record, overview)


if __name__ == "__main__":
    main()
