"""Record runs of MindSpore that change to this package, or come from it, in the middle.

As `record.py`, this runs in a virtual environment with MindSpore, whose docstring says
how to make it, and the tests read what it wrote::

    .venv-mindspore/bin/python tests/mindspore/record_interop.py

For every case it writes two files into `tests/data/mindspore/interop/`, float32 unless
said otherwise. Parameters have MindSpore's names and layout:

- `<case>_from.npz`, a run of MindSpore's:
  - `checkpoint/*`: what `mindspore.load_checkpoint` returned of the optimizer's
    checkpoint after MIDDLE steps, the parameters among it;
  - `gradients/*`, shape (STEPS - MIDDLE, ...): those of the steps after that;
  - `end/*`: the parameters after STEPS steps;
- `<case>_to.npz`: `end/*`, the parameters after MindSpore has gone on with what
  `save_interop.py` saved of a run of ours in `<case>_ours.npz`. Without that file it is
  left out; make it with ours and run this again.

Seeds are fixed, and a second run on the same kind of machine writes the same bytes.
"""

import tempfile
from pathlib import Path
from typing import Any

import mindspore
import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.experimental import optim

DATA = Path(__file__).resolve().parents[1] / "data" / "mindspore" / "interop"
STEPS = 24
MIDDLE = 10

Arrays = dict[str, Any]


class Net(nn.Cell):
    """Layers whose parameters have MindSpore's own names; nothing is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, (3, 4), pad_mode="valid", has_bias=True)
        self.norm = nn.BatchNorm2d(3)
        self.emb = nn.Embedding(5, 4)
        self.fc = nn.Dense(6, 2)


def experimental(parameters: list[Parameter]) -> Any:
    """Return an optimizer with one group."""
    return optim.Adamax(parameters, 0.05, (0.85, 0.99), 1e-6, 0.1)


def groups(parameters: list[Parameter]) -> Any:
    """Return an optimizer with two groups, the kernels and the rest."""
    kernels = [p for p in parameters if p.ndim > 1]
    rest = [p for p in parameters if p.ndim <= 1]
    return optim.Adamax(
        [
            {"params": kernels, "lr": 0.1, "betas": (0.8, 0.95), "weight_decay": 0.2},
            {"params": rest, "lr": 0.02, "maximize": True},
        ],
        eps=1e-6,
    )


def nn_adamax(parameters: list[Parameter]) -> Any:
    """Return `mindspore.nn.AdaMax`, which has its epsilon outside the maximum."""
    return nn.AdaMax(parameters, 0.05, beta1=0.85, beta2=0.99, eps=1e-2)


CASES = {"experimental": experimental, "groups": groups, "nn_adamax": nn_adamax}


def make(case: str, values: Arrays) -> tuple[dict[str, Parameter], Any]:
    """Return the parameters, by name, with these values, and the optimizer."""
    parameters = {p.name: p for p in Net().trainable_params()}
    for name, parameter in parameters.items():
        parameter.set_data(Tensor(values[name]))
    return parameters, CASES[case](list(parameters.values()))


def advance(
    parameters: dict[str, Parameter], optimizer: Any, gradients: Arrays, steps: range
) -> Arrays:
    """Take steps; return the parameters after them."""
    for step in steps:
        optimizer(tuple(Tensor(gradients[p.name][step]) for p in optimizer.parameters))
    return {name: p.asnumpy().copy() for name, p in parameters.items()}


def through_a_file(optimizer: Any) -> Arrays:
    """Save a checkpoint of an optimizer and return what is in it."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "optimizer.ckpt")
        mindspore.save_checkpoint(optimizer, path)
        return {k: v.asnumpy() for k, v in mindspore.load_checkpoint(path).items()}


def prefixed(**collections: Arrays) -> Arrays:
    """Return several collections as one, with their names before those in them."""
    return {
        f"{prefix}/{name}": array
        for prefix, arrays in collections.items()
        for name, array in arrays.items()
    }


def record_from(case: str) -> Arrays:
    """Run a case from its beginning; return the arrays of its first file."""
    rng = np.random.default_rng(list(case.encode()))
    shapes = {p.name: p.shape for p in Net().trainable_params()}
    initial = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    gradients = {
        k: rng.normal(size=(STEPS, *s)).astype(np.float32) for k, s in shapes.items()
    }
    parameters, optimizer = make(case, initial)
    advance(parameters, optimizer, gradients, range(MIDDLE))
    checkpoint = through_a_file(optimizer)
    end = advance(parameters, optimizer, gradients, range(MIDDLE, STEPS))
    later = {name: array[MIDDLE:] for name, array in gradients.items()}
    return prefixed(checkpoint=checkpoint, gradients=later, end=end)


def record_to(case: str, path: Path) -> Arrays:
    """Go on from a run of ours; return the arrays of the second file."""
    with np.load(path) as file:
        ours = dict(file)
    checkpoint = part(ours, "checkpoint")
    parameters, optimizer = make(case, checkpoint)
    loaded = {
        name: Parameter(Tensor(array), name=name) for name, array in checkpoint.items()
    }
    missing, surplus = mindspore.load_param_into_net(optimizer, loaded)
    # Ours has no learning rate.
    assert set(missing) <= {"learning_rate"} and not surplus, (missing, surplus)
    gradients = part(ours, "gradients")
    steps = range(len(next(iter(gradients.values()))))
    return prefixed(end=advance(parameters, optimizer, gradients, steps))


def part(arrays: Arrays, prefix: str) -> Arrays:
    """Return one of several collections, without its name."""
    start = prefix + "/"
    return {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}


def main() -> None:
    """Record all cases."""
    DATA.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        np.savez_compressed(DATA / f"{case}_from.npz", **record_from(case))
        ours = DATA / f"{case}_ours.npz"
        if ours.exists():
            np.savez_compressed(DATA / f"{case}_to.npz", **record_to(case, ours))


if __name__ == "__main__":
    main()
