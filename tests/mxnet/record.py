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

from collections.abc import Iterator, Mapping
from typing import Any

import mxnet
import numpy as np

from tests.recording import STEPS, record_all, record_leaves

CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "learning_rate": {"learning_rate": 0.1},
    "betas": {"learning_rate": 0.05, "beta1": 0.7, "beta2": 0.9},
    "weight_decay": {"learning_rate": 0.05, "wd": 0.1},
    "clip_gradient": {"learning_rate": 0.05, "wd": 0.1, "clip_gradient": 0.5},
}
DEFAULTS = {"learning_rate": 0.002, "beta1": 0.9, "beta2": 0.999}


def run(
    settings: Mapping[str, Any], initial: np.ndarray, gradients: np.ndarray
) -> Iterator[np.ndarray]:
    """Return the parameter after each step."""
    optimizer = mxnet.optimizer.Adamax(**settings)
    weight = mxnet.nd.array(initial)
    state = optimizer.create_state(0, weight)
    for gradient in gradients:
        optimizer.update(0, weight, mxnet.nd.array(gradient), state)
        yield weight.asnumpy()


def main() -> None:
    """Record all cases."""
    overview = {
        "mxnet": mxnet.__version__,
        "steps": STEPS,
        "cases": {name: {**DEFAULTS, **case} for name, case in CASES.items()},
    }
    record_all("mxnet", CASES, record_leaves(run), overview)


if __name__ == "__main__":
    main()
