"""Record trajectories of fairseq's own Adamax, to replay them without fairseq.

fairseq's Adamax is one file, which needs only PyTorch. This script takes that file from
the wheel, and the tests read what it wrote::

    pip download --no-deps --only-binary :all: --python-version 3.8 \\
      --platform manylinux1_x86_64 fairseq==0.12.2
    python tests/fairseq/record.py fairseq-0.12.2-*.whl  # with PyTorch

It writes into `tests/data/fairseq/` what `tests/paddle/record.py` writes for
PaddlePaddle, without the moments.
"""

import argparse
import json
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

STEPS = 60
SHAPES = ((5, 3), (3,))
DATA = Path(__file__).resolve().parents[1] / "data" / "fairseq"

DEFAULTS: dict[str, Any] = {
    "lr": 2e-3,
    "betas": (0.9, 0.999),
    "eps": 1e-8,
    "weight_decay": 0.0,
    "bias_correction": True,
}
CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "betas": {"lr": 0.05, "betas": (0.7, 0.9)},
    "eps": {"lr": 0.05, "eps": 0.01},
    "weight_decay": {"lr": 0.05, "weight_decay": 0.1},
    "no_bias_correction": {
        "lr": 0.05,
        "eps": 0.01,
        "weight_decay": 0.1,
        "bias_correction": False,
    },
}


def load(wheel: Path) -> Any:
    """Return the class `Adamax` of a wheel, without importing the rest of it."""
    package: Any = types.ModuleType("fairseq_optim")
    package.__path__ = []
    package.register_optimizer = lambda name: lambda cls: cls
    package.LegacyFairseqOptimizer = object
    sys.modules["fairseq_optim"] = package
    source = zipfile.ZipFile(wheel).read("fairseq/optim/adamax.py")
    namespace: dict[str, Any] = {"__package__": "fairseq_optim", "__name__": "adamax"}
    exec(compile(source, "adamax.py", "exec"), namespace)
    return namespace["Adamax"]


def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return a gradient for each step: of mixed size, one element in eight 0."""
    gradients = rng.standard_normal((STEPS, *shape)) * 10.0 ** rng.uniform(-1, 1, shape)
    gradients *= rng.random((STEPS, *shape)) > 0.125
    return gradients.astype(np.float32)


def record(adamax: Any, name: str, settings: dict[str, Any]) -> dict[str, np.ndarray]:
    """Run a case and return its arrays."""
    rng = np.random.default_rng(list(name.encode()))
    arrays = {}
    for i, shape in enumerate(SHAPES):
        gradients = draw(rng, shape)
        initial = rng.uniform(-1, 1, shape).astype(np.float32)
        parameter = torch.nn.Parameter(torch.tensor(initial))
        optimizer = adamax([parameter], **{**DEFAULTS, **settings})
        history = [initial]
        for gradient in gradients:
            parameter.grad = torch.tensor(gradient)
            optimizer.step()
            history.append(parameter.detach().numpy().copy())
        arrays[f"{name}/params_{i}"] = np.stack(history)
        arrays[f"{name}/grads_{i}"] = gradients
    return arrays


def main() -> None:
    """Record all cases."""
    parser = argparse.ArgumentParser(description="Record fairseq's Adamax.")
    parser.add_argument("wheel", type=Path)
    wheel = parser.parse_args().wheel
    DATA.mkdir(parents=True, exist_ok=True)
    adamax = load(wheel)
    arrays: dict[str, Any] = {}
    for name, settings in CASES.items():
        arrays |= record(adamax, name, settings)
    np.savez_compressed(DATA / "runs.npz", **arrays)
    overview = {
        "fairseq": wheel.name.split("-")[1],
        "steps": STEPS,
        "cases": {name: {**DEFAULTS, **case} for name, case in CASES.items()},
    }
    (DATA / "cases.json").write_text(json.dumps(overview, indent=1) + "\n")


if __name__ == "__main__":
    main()
