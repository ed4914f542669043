"""Record trajectories of PaddlePaddle's own Adamax, to replay them without it.

PaddlePaddle is no dependency of the tests: this script runs it once, in a virtual
environment of its own, and the tests read what it wrote::

    python3.11 -m venv .venv-paddle
    .venv-paddle/bin/pip install paddlepaddle==3.3.0
    .venv-paddle/bin/python -m tests.paddle.record

It writes into `tests/data/paddle/`, or into the directory given as argument:

- `cases.json`: the version, the number of steps, and every case's settings;
- `runs.npz`, float32, for each case and leaf i:
  - `<case>/params_i`, shape (steps + 1, ...): the initial value and that after each
    step;
  - `<case>/grads_i`, shape (steps, ...): the gradients;
  - `<case>/moment_i`, `<case>/inf_norm_i`: m and u after the last step.

Seeds are fixed and zip members carry no date, so that a second run on the same kind of
machine writes the same bytes.

What the documentation leaves open, as in the recorded numbers:

- ε is added to the decayed norm, u ← max(β2 u + ε, |g|), and its sum grows: without a
  gradient, u tends to ε / (1 - β2).
- `weight_decay` is coupled: it enters the gradient, after `grad_clip`.
- β1^t is kept in float32 by repeated multiplication.
"""

from typing import Any

import numpy as np
import paddle

from tests.recording import SHAPES, STEPS, record_all

CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "learning_rate": {"learning_rate": 0.1},
    "betas": {"learning_rate": 0.05, "beta1": 0.7, "beta2": 0.9},
    "beta1_above_beta2": {"learning_rate": 0.05, "beta1": 0.95, "beta2": 0.5},
    "beta1_zero": {"learning_rate": 0.05, "beta1": 0.0},
    "epsilon": {"learning_rate": 0.05, "epsilon": 0.01},
    "epsilon_large": {"learning_rate": 0.05, "epsilon": 0.5, "beta2": 0.9},
    "weight_decay": {"learning_rate": 0.05, "weight_decay": 0.1},
    "clip_by_norm": {"learning_rate": 0.05, "weight_decay": 0.1, "clip_norm": 0.5},
}
DEFAULTS = {"learning_rate": 0.001, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}


def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return a gradient for each step: of mixed size, one element in eight 0.

    None is so small that the decay outweighs it; see `tests/running.py`.
    """
    gradients = rng.standard_normal((STEPS, *shape)) * 10.0 ** rng.uniform(-1, 1, shape)
    return gradients * (rng.random((STEPS, *shape)) > 0.125)


def record(name: str, settings: dict[str, Any]) -> dict[str, np.ndarray]:
    """Run a case and return its arrays."""
    rng = np.random.default_rng(list(name.encode()))
    gradients = [draw(rng, shape).astype(np.float32) for shape in SHAPES]
    initial = [rng.uniform(-1, 1, shape).astype(np.float32) for shape in SHAPES]
    parameters = [
        paddle.create_parameter(
            array.shape,
            "float32",
            default_initializer=paddle.nn.initializer.Assign(array),
        )
        for array in initial
    ]
    settings = dict(settings)
    clip_norm = settings.pop("clip_norm", None)
    clip = None if clip_norm is None else paddle.nn.ClipGradByNorm(clip_norm)
    optimizer = paddle.optimizer.Adamax(
        parameters=parameters, grad_clip=clip, **settings
    )
    histories = [[array] for array in initial]
    for step in range(STEPS):
        for gradient, parameter in zip(gradients, parameters, strict=True):
            # The gradient of this sum is `gradient`.
            (parameter * paddle.to_tensor(gradient[step])).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
        for history, parameter in zip(histories, parameters, strict=True):
            history.append(parameter.numpy())
    state = optimizer.state_dict()
    arrays = {}
    for i, parameter in enumerate(parameters):
        arrays[f"{name}/params_{i}"] = np.stack(histories[i])
        arrays[f"{name}/grads_{i}"] = gradients[i]
        for word in ("moment", "inf_norm"):
            [key] = [k for k in state if k.startswith(f"{parameter.name}_{word}_")]
            arrays[f"{name}/{word}_{i}"] = state[key].numpy()
    return arrays


def main() -> None:
    """Record all cases."""
    overview = {
        "paddle": paddle.__version__,
        "steps": STEPS,
        "cases": {name: {**DEFAULTS, **case} for name, case in CASES.items()},
    }
    record_all("paddle", CASES, record, overview)


if __name__ == "__main__":
    main()
