"""Record runs of Keras 2 that change to this package, or come from it, in the middle.

As `record.py`, this runs in a virtual environment with TensorFlow, whose docstring says
how to make it, and the tests read what it wrote::

    .venv-tensorflow/bin/python tests/tensorflow/record_interop.py

For each of the two optimizers it writes two files into `tests/data/tensorflow/`:

- `<optimizer>_from.npz`, a run of Keras's:
  - `params/*` and `variables/*`: the model's and the optimizer's variables after MIDDLE
    steps, by their names;
  - `gradients/*`, shape (STEPS - MIDDLE, ...): those of the steps after that;
  - `end/*`: the model's variables after STEPS steps;
- `<optimizer>_to.npz`: `end/*` of a second run, which Keras continued with what
  `save_interop.py` saved of ours in `<optimizer>_ours.npz`. Without that file it is
  left out; make it with ours and run this again.
"""

import os
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf
import tf_keras

DATA = Path(__file__).resolve().parents[1] / "data" / "tensorflow"
STEPS = 24
MIDDLE = 10
SETTINGS = (0.05, 0.85, 0.99, 1e-2)

Arrays = dict[str, np.ndarray]

OPTIMIZERS = {
    "legacy": tf_keras.optimizers.legacy.Adamax,
    "tf_keras": tf_keras.optimizers.Adamax,
}


def make_model() -> Any:
    """Return a model whose variables have Keras's own names."""
    tf_keras.backend.clear_session()
    return tf_keras.Sequential(
        [
            tf_keras.layers.Input((4, 4, 2)),
            tf_keras.layers.Conv2D(3, 3, name="conv"),
            tf_keras.layers.BatchNormalization(name="norm"),
            tf_keras.layers.Flatten(),
            tf_keras.layers.Dense(2, name="fc"),
        ]
    )


def advance(model: Any, optimizer: Any, gradients: Arrays, steps: range) -> Arrays:
    """Take steps; return the model's variables after them."""
    variables = model.trainable_variables
    for step in steps:
        current = [tf.constant(gradients[v.name][step]) for v in variables]
        optimizer.apply_gradients(zip(current, variables, strict=True))
    return values(variables)


def variables_of(optimizer: Any) -> list[Any]:
    """Return an optimizer's variables, which the legacy class has as a method."""
    variables = optimizer.variables
    return variables() if callable(variables) else variables


def values(variables: list[Any]) -> Arrays:
    """Return variables as arrays, by name."""
    return {v.name: v.numpy() for v in variables}


def collected(**collections: Arrays) -> Arrays:
    """Return several collections as one, with their names before those in them."""
    return {
        f"{prefix}|{name}": array
        for prefix, arrays in collections.items()
        for name, array in arrays.items()
    }


def record_from(name: str) -> dict[str, Any]:
    """Run from the beginning; return the arrays of the first file."""
    rng = np.random.default_rng(list(name.encode()))
    model, optimizer = make_model(), OPTIMIZERS[name](*SETTINGS)
    gradients = {
        v.name: rng.normal(size=(STEPS, *v.shape)).astype(np.float32)
        for v in model.trainable_variables
    }
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape).astype(np.float32))
    params = advance(model, optimizer, gradients, range(MIDDLE))
    saved = values(variables_of(optimizer))
    end = advance(model, optimizer, gradients, range(MIDDLE, STEPS))
    later = {name: array[MIDDLE:] for name, array in gradients.items()}
    return collected(params=params, variables=saved, gradients=later, end=end)


def record_to(name: str, path: Path) -> dict[str, Any]:
    """Continue a run of ours; return the arrays of the second file."""
    with np.load(path) as file:
        ours = dict(file)
    model, optimizer = make_model(), OPTIMIZERS[name](*SETTINGS)
    # The variables of an optimizer exist from its first step on.
    zeros = {v.name: np.zeros((1, *v.shape)) for v in model.trainable_variables}
    advance(model, optimizer, {k: z.astype("f4") for k, z in zeros.items()}, range(1))
    for variable in model.trainable_variables:
        variable.assign(ours[f"params|{variable.name}"])
    count = len(variables_of(optimizer))
    optimizer.set_weights([ours[f"weights|{i}"] for i in range(count)])
    gradients = {v.name: ours[f"gradients|{v.name}"] for v in model.trainable_variables}
    steps = range(len(next(iter(gradients.values()))))
    return collected(end=advance(model, optimizer, gradients, steps))


def main() -> None:
    """Record both optimizers."""
    for name in OPTIMIZERS:
        np.savez_compressed(DATA / f"{name}_from.npz", **record_from(name))
        ours = DATA / f"{name}_ours.npz"
        if ours.exists():
            np.savez_compressed(DATA / f"{name}_to.npz", **record_to(name, ours))


if __name__ == "__main__":
    main()
