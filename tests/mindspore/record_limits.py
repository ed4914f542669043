"""Record what MindSpore's Adamax does in half precision, with an int lr and under vmap.

docs/comparison.md has it. Run it as `record.py` is run, in MindSpore's own virtual
environment; it writes `tests/data/mindspore/limits.json`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore
import numpy as np
from mindspore import Parameter, Tensor, ops
from mindspore.experimental import optim

DATA = Path(__file__).resolve().parents[1] / "data" / "mindspore"


def step(dtype: Any, gradient: float, lr: Any = 1e-3, new_lr: Any = None) -> Any:
    """Return a parameter that was 1 after one step."""
    param = Parameter(Tensor(np.ones(2), dtype), name="param")
    optimizer = optim.Adamax([param], lr=lr)
    if new_lr is not None:
        optimizer.param_groups[0]["lr"] = new_lr
    optimizer((Tensor(np.full(2, gradient), dtype),))
    return param.value()


def made_inside(lr: Any) -> Any:
    """Step with an optimizer made for this learning rate."""
    return step(mindspore.float32, 1.0, lr)


PARAM = Parameter(Tensor(np.ones(2), mindspore.float32), name="swept")
OPTIMIZER = optim.Adamax([PARAM])
GRADIENTS = (Tensor(np.ones(2), mindspore.float32),)


def made_outside(lr: Any) -> Any:
    """Step with one optimizer that is given this learning rate, as schedulers do it."""
    ops.assign(OPTIMIZER.param_groups[0]["lr"], lr)
    OPTIMIZER(GRADIENTS)
    return PARAM.value()


def outcome(call: Callable[[], Any]) -> str | list[str]:
    """Return the numbers that a call returns, or the name of its error."""
    try:
        result = call().astype(mindspore.float32).asnumpy()
    except Exception as error:  # whatever it is: it is what is recorded
        return type(error).__name__
    return [f"{number:.6g}" for number in result.ravel()]


def main() -> None:
    """Record all."""
    rates = Tensor([0.1, 0.25], mindspore.float32)
    found = {
        "mindspore": mindspore.__version__,
        "float16, zero gradient": outcome(lambda: step(mindspore.float16, 0.0)),
        "bfloat16, gradient of 1": outcome(lambda: step(mindspore.bfloat16, 1.0)),
        "lr set to the float 0.5": outcome(
            lambda: step(mindspore.float32, 1.0, new_lr=0.5)
        ),
        "lr set to the int 1": outcome(lambda: step(mindspore.float32, 1.0, new_lr=1)),
        "vmap, optimizer made inside": outcome(lambda: ops.vmap(made_inside)(rates)),
        "vmap, optimizer made outside": outcome(lambda: ops.vmap(made_outside)(rates)),
    }
    (DATA / "limits.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
