"""Other frameworks' Adamax, each in a process of its own.

    python benchmarks/speed_peers.py torch-foreach < shapes-and-orders

The first line of the standard input is a JSON list of shapes. What follows are orders:
a number of steps a line, which are taken and answered with the seconds for one. So one
process after the other is measured, in turn with the subjects of JAX.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Shapes = Sequence[tuple[int, ...]]
RATE = 1e-3
WARM_UP = 5  # PyTorch compiles again for a few steps


def torch(shapes: Shapes, *, compiled: bool = False, **options: Any) -> Callable:
    """PyTorch's Adamax."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    params = [torch.randn(shape, device=device) for shape in shapes]
    for param in params:
        param.grad = torch.randn_like(param)
    optimizer = torch.optim.Adamax(params, lr=RATE, **options)
    step = torch.compile(optimizer.step) if compiled else optimizer.step

    def run(steps: int) -> None:
        with torch.no_grad():
            for _ in range(steps):
                step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def keras(shapes: Shapes) -> Callable:
    """Keras's Adamax on JAX, in one jitted step, which is how `fit` runs it."""
    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    import keras

    rng = np.random.default_rng(0)
    variables = [keras.Variable(rng.normal(size=s).astype("float32")) for s in shapes]
    gradients = [jax.numpy.array(v.value, copy=True) for v in variables]
    optimizer = keras.optimizers.Adamax(RATE)
    optimizer.build(variables)
    step = jax.jit(optimizer.stateless_apply, donate_argnums=(0, 2))
    state: list[Any] = [
        [v.value for v in optimizer.variables],
        [v.value for v in variables],
    ]

    def run(steps: int) -> None:
        own, params = state
        for _ in range(steps):
            params, own = step(own, gradients, params)
        jax.block_until_ready(params)
        state[:] = own, params

    return run


def mindspore(shapes: Shapes) -> Callable:
    """MindSpore's experimental Adamax."""
    import mindspore
    from mindspore.experimental import optim

    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype("float32") for shape in shapes]
    params = [
        mindspore.Parameter(mindspore.Tensor(array), name=f"p{i}")
        for i, array in enumerate(arrays)
    ]
    gradients = tuple(map(mindspore.Tensor, arrays))
    optimizer = optim.Adamax(params, lr=RATE)

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer(gradients)
        # Ends when the last parameter has been computed.
        params[-1].asnumpy()

    return run


PEERS: dict[str, Callable[[Shapes], Callable]] = {
    "torch-foreach": lambda shapes: torch(shapes, foreach=True),
    "torch-single": lambda shapes: torch(shapes, foreach=False),
    "torch-compile": lambda shapes: torch(shapes, compiled=True),
    "keras": keras,
    "mindspore": mindspore,
}


def main() -> None:
    """Follow orders until there are no more."""
    shapes = [tuple(shape) for shape in json.loads(sys.stdin.readline())]
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    start = time.perf_counter()
    run = PEERS[sys.argv[1]](shapes)
    run(WARM_UP)
    print(time.perf_counter() - start, file=answers, flush=True)
    gc.disable()  # as for the others
    for line in sys.stdin:
        start = time.perf_counter()
        run(int(line))
        print((time.perf_counter() - start) / int(line), file=answers, flush=True)


if __name__ == "__main__":
    main()
