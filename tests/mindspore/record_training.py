"""Record MindSpore training a small network, for a notebook to draw without MindSpore.

Run it in the virtual environment that `record.py` describes, with scikit-learn added::

    .venv-mindspore/bin/pip install scikit-learn
    .venv-mindspore/bin/python tests/mindspore/record_training.py

It writes `notebooks/data/mindspore_digits.npz`: `version`, the hyperparameters, `loss`
of every step, and of the state after half of the steps `step`, and for each parameter i
`params_i`, `exp_avg_i` and `exp_inf_i`. Parameters are in MindSpore's order and layout,
weights of shape (out, in). The initial ones and the batches are those of the notebook
`coming_from_mindspore_and_pytorch.ipynb`, of which the loop below is the other half.
"""

from pathlib import Path
from typing import Any

import mindspore
import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.experimental import optim
from sklearn.datasets import load_digits

STEPS = 280
HYPERPARAMETERS = {"lr": 0.01, "weight_decay": 0.01}
FILE = Path(__file__).parents[2] / "notebooks" / "data" / "mindspore_digits.npz"


def initial_parameters() -> list[np.ndarray]:
    """Return what the notebook starts from: weight, bias, weight, bias."""
    rng = np.random.default_rng(0)
    return [
        rng.normal(0, np.sqrt(2 / 64), (32, 64)).astype(np.float32),
        np.zeros(32, np.float32),
        rng.normal(0, np.sqrt(2 / 32), (10, 32)).astype(np.float32),
        np.zeros(10, np.float32),
    ]


def main() -> None:
    """Train, and write the file."""
    images, labels = load_digits(return_X_y=True)
    images, labels = (images / 16).astype(np.float32), labels.astype(np.int32)

    first, second = nn.Dense(64, 32), nn.Dense(32, 10)
    net = nn.SequentialCell(first, nn.ReLU(), second)
    for parameter, value in zip(
        net.trainable_params(), initial_parameters(), strict=True
    ):
        parameter.set_data(Tensor(value))

    loss_fn = nn.CrossEntropyLoss()
    optimizer = optim.Adamax(net.trainable_params(), **HYPERPARAMETERS)
    grad_fn = mindspore.value_and_grad(
        lambda data, label: loss_fn(net(data), label), None, optimizer.parameters
    )

    losses, arrays = [], dict[str, Any](HYPERPARAMETERS)
    for step in range(STEPS):
        rows = slice(64 * (step % 28), 64 * (step % 28 + 1))
        loss, grads = grad_fn(Tensor(images[rows]), Tensor(labels[rows]))
        optimizer(grads)
        losses.append(loss.asnumpy())
        if step + 1 == STEPS // 2:
            arrays |= state(optimizer)

    arrays |= {"version": mindspore.__version__, "loss": np.stack(losses)}
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, **arrays)


def state(optimizer: optim.Adamax) -> dict[str, np.ndarray]:
    """Return a copy of the parameters, of m and u, and of the step count."""
    kinds: dict[str, list[Parameter]] = {
        "params": optimizer.parameters,
        "exp_avg": optimizer.exp_avg,
        "exp_inf": optimizer.exp_inf,
    }
    return {
        "step": optimizer.step_t.asnumpy().copy(),
        **{
            f"{kind}_{i}": value.asnumpy().copy()
            for kind, values in kinds.items()
            for i, value in enumerate(values)
        },
    }


if __name__ == "__main__":
    main()
