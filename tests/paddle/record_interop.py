"""Record runs of PaddlePaddle that change to this package, or come from it.

As `record.py`, this runs in a virtual environment with PaddlePaddle, whose docstring
says how to make it, and the tests read what it wrote::

    .venv-paddle/bin/python tests/paddle/record_interop.py

It writes two files into `tests/data/paddle/`:

- `interop_from.npz`, a run of PaddlePaddle's:
  - `params|*` and `state|*`: the network's and the optimizer's state dicts after
    MIDDLE steps, the latter as loaded from a file;
  - `names|*`: the name in the network of each of the optimizer's parameters;
  - `gradients|*`, shape (STEPS - MIDDLE, ...): those of the steps after that;
  - `end|*`: the network's state dict after STEPS steps;
- `interop_to.npz`: `end|*` of a second run, which PaddlePaddle continued with what
  `save_interop.py` saved of ours in `interop_ours.npz`. Without that file it is left
  out; make it with ours and run this again.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import paddle

DATA = Path(__file__).resolve().parents[1] / "data" / "paddle"
STEPS = 24
MIDDLE = 10

Arrays = dict[str, Any]


def make() -> tuple[Any, Any]:
    """Return a network and its optimizer."""
    net = paddle.nn.Sequential(
        ("conv", paddle.nn.Conv2D(2, 3, (3, 4))),
        ("norm", paddle.nn.LayerNorm(3)),
        ("emb", paddle.nn.Embedding(5, 4)),
        ("fc", paddle.nn.Linear(6, 2)),
    )
    optimizer = paddle.optimizer.Adamax(
        0.05, 0.85, 0.99, 1e-2, parameters=net.parameters(), weight_decay=0.1
    )
    return net, optimizer


def advance(net: Any, optimizer: Any, gradients: Arrays, steps: range) -> Arrays:
    """Take steps; return the network's parameters after them."""
    for step in steps:
        for name, parameter in net.named_parameters():
            # The gradient of this sum is the one that is wanted.
            (parameter * paddle.to_tensor(gradients[name][step])).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
    return {name: p.numpy().copy() for name, p in net.named_parameters()}


def collected(**collections: Arrays) -> Arrays:
    """Return several collections as one, with their names before those in them."""
    return {
        f"{prefix}|{name}": array
        for prefix, arrays in collections.items()
        for name, array in arrays.items()
    }


def record_from() -> Arrays:
    """Run from the beginning; return the arrays of the first file."""
    rng = np.random.default_rng(0)
    net, optimizer = make()
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters()}
    gradients = {
        name: rng.normal(size=(STEPS, *shape)).astype(np.float32)
        for name, shape in shapes.items()
    }
    net.set_state_dict(
        {k: paddle.to_tensor(rng.normal(size=s), "float32") for k, s in shapes.items()}
    )
    params = advance(net, optimizer, gradients, range(MIDDLE))
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "adamax.pdopt")
        paddle.save(optimizer.state_dict(), path)
        state = paddle.load(path, return_numpy=True)
    names = {p.name: np.array(name) for name, p in net.named_parameters()}
    end = advance(net, optimizer, gradients, range(MIDDLE, STEPS))
    later = {name: array[MIDDLE:] for name, array in gradients.items()}
    return collected(params=params, state=state, names=names, gradients=later, end=end)


def record_to(path: Path) -> Arrays:
    """Continue a run of ours; return the arrays of the second file."""
    ours: dict[str, Arrays] = {}
    with np.load(path) as file:
        for key, array in file.items():
            collection, _, name = key.partition("|")
            ours.setdefault(collection, {})[name] = array
    net, optimizer = make()
    net.set_state_dict({k: paddle.to_tensor(v) for k, v in ours["params"].items()})
    optimizer.set_state_dict(
        {name: paddle.to_tensor(array) for name, array in ours["state"].items()}
    )
    steps = range(len(ours["gradients"]["fc.bias"]))
    return collected(end=advance(net, optimizer, ours["gradients"], steps))


def main() -> None:
    """Record both runs, each with the names that a process begins with."""
    with paddle.utils.unique_name.guard():
        np.savez_compressed(DATA / "interop_from.npz", **record_from())
    ours = DATA / "interop_ours.npz"
    if ours.exists():
        with paddle.utils.unique_name.guard():
            np.savez_compressed(DATA / "interop_to.npz", **record_to(ours))


if __name__ == "__main__":
    main()
