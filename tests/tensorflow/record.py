"""Record TensorFlow's Adamax optimizers, to replay them without TensorFlow.

TensorFlow is no dependency of the tests: this script runs it once, in a virtual
environment of its own, and the tests read what it wrote::

    python3.11 -m venv .venv-tensorflow
    .venv-tensorflow/bin/pip install tensorflow-cpu==2.21.0 tf_keras==2.21.0
    .venv-tensorflow/bin/python -m tests.tensorflow.record

There are two optimizers. `tf_keras.optimizers.legacy.Adamax` is TensorFlow 2's own,
with the kernel `tf.raw_ops.ResourceApplyAdaMax`; `tf_keras.optimizers.Adamax` replaced
it in TensorFlow 2.11. (`tf.keras` is Keras 3 since TensorFlow 2.16; the tests run that
live.) For embeddings, TensorFlow has sparse gradients, `tf.IndexedSlices`: the legacy
optimizer leaves rows without gradient alone, and the newer one does not.

It writes into `tests/data/tensorflow/`, or into the directory given as argument:

- `cases.json`: the versions, the number of steps and, for every case, the optimizer's
  module and its settings;
- `runs.npz`, float32, for each case and leaf i:
  - `<case>/params_i`, shape (steps + 1, ...): the initial value and that after each
    step;
  - `<case>/grads_i`, shape (steps, ...): the gradients. Where they were sparse, rows
    that are all 0 were not in the slices.

Seeds are fixed and zip members carry no date, so that a second run on the same kind of
machine writes the same bytes.
"""

import inspect
import os
from dataclasses import dataclass, field
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf
import tf_keras

from tests.recording import SHAPES, STEPS, record_all


@dataclass(frozen=True)
class Case:
    """A run to record.

    Attributes:
      optimizer: "legacy" or "tf_keras".
      settings: Arguments of the optimizer.
      slices: How often each row is in the `tf.IndexedSlices` of a gradient; 0 for dense
        gradients.
    """

    optimizer: str
    settings: dict[str, Any] = field(default_factory=dict)
    slices: int = 0


BETAS = {"learning_rate": 0.05, "beta_1": 0.7, "beta_2": 0.9}
LARGE_EPSILON = {"learning_rate": 0.05, "epsilon": 0.01}

CASES = {
    "legacy_defaults": Case("legacy"),
    "legacy_betas": Case("legacy", BETAS),
    "legacy_epsilon": Case("legacy", LARGE_EPSILON),
    "legacy_decay": Case("legacy", {"learning_rate": 0.1, "decay": 0.1}),
    "legacy_clipnorm": Case("legacy", {"learning_rate": 0.05, "clipnorm": 0.5}),
    "legacy_sparse": Case("legacy", {"learning_rate": 0.05}, slices=1),
    "legacy_sparse_betas": Case("legacy", BETAS, slices=1),
    "legacy_sparse_epsilon": Case("legacy", LARGE_EPSILON, slices=1),
    "legacy_sparse_repeated": Case("legacy", {"learning_rate": 0.05}, slices=2),
    "tf_keras_defaults": Case("tf_keras"),
    "tf_keras_betas": Case("tf_keras", BETAS),
    "tf_keras_epsilon": Case("tf_keras", LARGE_EPSILON),
    "tf_keras_weight_decay": Case(
        "tf_keras", {"learning_rate": 0.05, "weight_decay": 0.1}
    ),
    "tf_keras_clipnorm": Case("tf_keras", {"learning_rate": 0.05, "clipnorm": 0.5}),
    "tf_keras_sparse": Case("tf_keras", {"learning_rate": 0.05}, slices=1),
}

OPTIMIZERS = {
    "legacy": tf_keras.optimizers.legacy.Adamax,
    "tf_keras": tf_keras.optimizers.Adamax,
}


def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return a gradient for each step: of mixed size, and 0 in three rows of five."""
    gradients = rng.standard_normal((STEPS, *shape)) * 10.0 ** rng.uniform(-1, 1, shape)
    rows = rng.random((STEPS, shape[0])) < 0.4
    return gradients * rows.reshape(STEPS, shape[0], *(1 for _ in shape[1:]))


def as_slices(gradient: np.ndarray, times: int) -> tf.IndexedSlices:
    """Return the rows that are not all 0, each in `times` equal parts."""
    rows = np.flatnonzero(gradient.reshape(len(gradient), -1).any(axis=1))
    rows = np.tile(rows, times)
    return tf.IndexedSlices(gradient[rows] / times, rows, gradient.shape)


def record(name: str, case: Case) -> dict[str, np.ndarray]:
    """Run a case and return its arrays."""
    rng = np.random.default_rng(list(name.encode()))
    gradients = [draw(rng, shape).astype(np.float32) for shape in SHAPES]
    initial = [rng.uniform(-1, 1, shape).astype(np.float32) for shape in SHAPES]
    variables = [tf.Variable(array) for array in initial]
    optimizer = OPTIMIZERS[case.optimizer](**case.settings)
    histories = [[array] for array in initial]
    for step in range(STEPS):
        current: list[Any] = [array[step] for array in gradients]
        if case.slices:
            current = [as_slices(gradient, case.slices) for gradient in current]
        else:
            current = list(map(tf.constant, current))
        optimizer.apply_gradients(zip(current, variables, strict=True))
        for history, variable in zip(histories, variables, strict=True):
            history.append(variable.numpy())
    arrays = {f"{name}/params_{i}": np.stack(x) for i, x in enumerate(histories)}
    return arrays | {f"{name}/grads_{i}": x for i, x in enumerate(gradients)}


def main() -> None:
    """Record all cases."""
    overview = {
        "tensorflow": tf.__version__,
        "tf_keras": tf_keras.__version__,
        "steps": STEPS,
        "cases": {
            name: {
                "optimizer": case.optimizer,
                "sparse": case.slices > 0,
                "settings": {**_defaults(case), **case.settings},
            }
            for name, case in CASES.items()
        },
    }
    record_all("tensorflow", CASES, record, overview)


def _defaults(case: Case) -> dict[str, Any]:
    """Return the numbers that the optimizer takes by default."""
    parameters = inspect.signature(OPTIMIZERS[case.optimizer].__init__).parameters
    names = ("learning_rate", "beta_1", "beta_2", "epsilon")
    return {name: parameters[name].default for name in names}


if __name__ == "__main__":
    main()
