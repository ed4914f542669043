"""Record the Adamax of projects that ship it as a file of their own.

The script loads that file without the rest of its project. Given the name of a rule,
and the checkout that has the file, it writes into `tests/data/repositories/<rule>/`
what `tests/paddle/record.py` writes for PaddlePaddle, without the moments::

    git clone https://github.com/namisan/mt-dnn
    python -m tests.repositories.record mt_dnn mt-dnn

The files, and what they need:

- `efficient_vdvae_jax`: github.com/Rayhane-mamah/Efficient-VDVAE at a5ffe19,
  `efficient_vdvae_jax/model/adamax.py` and `optimizers.py`; jax 0.4.13, jaxlib 0.4.13,
  optax 0.1.2, numpy<2, scipy<1.13.
- `efficient_vdvae_torch`: the same, `efficient_vdvae_torch/model/adamax.py`; PyTorch.
- `fairseq`, `fairseq_uncorrected`: `fairseq/optim/adamax.py` in PyPI's wheel of fairseq
  0.12.2, which takes the place of the checkout; PyTorch.
- `glow`: github.com/openai/glow at 1f13529, `optim.py`; tensorflow-cpu 2.21.
- `lasagne`: github.com/Lasagne/Lasagne at 07ce3cc, `lasagne/updates.py`; Theano-PyMC
  1.1.2, numpy 1.23.5, and `THEANO_FLAGS=cxx=,blas__ldflags=`.
- `mt_dnn`: github.com/namisan/mt-dnn at 4658bad, `module/bert_optim.py`; PyTorch.
- `nvae`: github.com/NVlabs/NVAE at feb9937, `thirdparty/adamax.py`; PyTorch.

PyTorch was 2.13, which the tests need anyway. The others were in virtual environments
of their own.
"""

import argparse
import importlib.util
import sys
import tempfile
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.recording import STEPS, Run, record_all, record_leaves

DATA = Path(__file__).resolve().parents[1] / "data" / "repositories"

CASES: dict[str, dict[str, float]] = {
    "defaults": {"lr": 2e-3, "b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.0},
    "betas": {"lr": 0.05, "b1": 0.7, "b2": 0.9, "eps": 1e-8, "weight_decay": 0.0},
    "others": {"lr": 0.05, "b1": 0.8, "b2": 0.95, "eps": 0.01, "weight_decay": 0.1},
}


def stub(name: str, **attributes: Any) -> Any:
    """Put a module that has only these attributes into `sys.modules`."""
    module: Any = types.ModuleType(name)
    module.__path__ = []
    vars(module).update(attributes)
    sys.modules[name] = module
    return module


def load(file: Path, package: str = "") -> Any:
    """Import a file as a module of `package`."""
    name = f"{package}.recorded" if package else "recorded"
    spec: Any = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def torch_run(make: Callable[..., Any]) -> Run:
    """Return the run of a PyTorch optimizer: `make(params, lr, b1, b2, eps, decay)`."""
    import torch

    def run(settings: Any, initial: Any, gradients: Any) -> Iterator[np.ndarray]:
        parameter = torch.nn.Parameter(torch.tensor(initial))
        optimizer = make([parameter], *settings.values())
        for gradient in gradients:
            parameter.grad = torch.tensor(gradient)
            optimizer.step()
            yield parameter.detach().numpy().copy()

    return run


def fairseq(wheel: Path, *, corrected: bool = True) -> Run:
    def register(name):
        return lambda cls: cls

    stub("fairseq_optim", register_optimizer=register, LegacyFairseqOptimizer=object)
    with tempfile.TemporaryDirectory() as folder:
        file = zipfile.ZipFile(wheel).extract("fairseq/optim/adamax.py", folder)
        adamax = load(Path(file), "fairseq_optim").Adamax
    return torch_run(
        lambda params, lr, b1, b2, eps, decay: adamax(
            params, lr, (b1, b2), eps, decay, bias_correction=corrected
        )
    )


def nvae(checkout: Path, file: str = "thirdparty/adamax.py") -> Run:
    import torch

    # Efficient-VDVAE's file moves the moments to a GPU at each step.
    tensor: Any = torch.Tensor
    tensor.cuda = lambda self: self
    adamax = load(checkout / file).Adamax
    return torch_run(
        lambda params, lr, b1, b2, eps, decay: adamax(params, lr, (b1, b2), eps, decay)
    )


def efficient_vdvae_torch(checkout: Path) -> Run:
    return nvae(checkout, "efficient_vdvae_torch/model/adamax.py")


def mt_dnn(checkout: Path) -> Run:
    schedules = ("warmup_constant", "warmup_cosine", "warmup_linear")
    stub("pytorch_pretrained_bert")
    stub("pytorch_pretrained_bert.optimization", **dict.fromkeys(schedules))
    adamax = load(checkout / "module/bert_optim.py").Adamax
    return torch_run(
        lambda params, lr, b1, b2, eps, decay: adamax(
            params, lr, betas=(b1, b2), eps=eps, weight_decay_rate=decay
        )
    )


def glow(checkout: Path) -> Run:
    import tensorflow

    tf = tensorflow.compat.v1
    sys.modules["tensorflow"] = tf
    stub("tfops", allreduce_mean=lambda x: x)  # on one machine
    stub("horovod.tensorflow")
    stub("horovod").tensorflow = sys.modules["horovod.tensorflow"]
    adamax = load(checkout / "optim.py").adamax

    def run(settings: Any, initial: Any, gradients: Any) -> Iterator[np.ndarray]:
        hps = types.SimpleNamespace(
            beta1=settings["b1"],
            # beta2 is 1 - 1 / (train_its * polyak_epochs).
            train_its=round(1 / (1 - settings["b2"])),
            polyak_epochs=1,
            weight_decay=1.0 - settings["weight_decay"],
        )
        with tf.Graph().as_default(), tf.Session() as session:
            parameter = tf.Variable(initial)
            fed = tf.placeholder(tf.float32, initial.shape)
            step, _, _ = adamax(
                [parameter], [fed], settings["lr"], hps, settings["eps"]
            )
            session.run(tf.global_variables_initializer())
            for gradient in gradients:
                session.run(step, {fed: gradient})
                yield session.run(parameter)

    return run


def lasagne(checkout: Path) -> Run:
    import theano

    theano.config.floatX = "float32"
    stub("lasagne", utils=types.SimpleNamespace(floatX=np.float32))
    adamax = load(checkout / "lasagne/updates.py", "lasagne").adamax

    def run(settings: Any, initial: Any, gradients: Any) -> Iterator[np.ndarray]:
        parameter = theano.shared(initial)
        fed = theano.tensor.matrix() if initial.ndim == 2 else theano.tensor.vector()
        values = list(settings.values())[:4]
        updates = adamax([fed], [parameter], *map(np.float32, values))
        step = theano.function([fed], updates=updates)
        for gradient in gradients:
            step(gradient)
            yield parameter.get_value()

    return run


def efficient_vdvae_jax(checkout: Path) -> Run:
    import jax
    import optax

    hparams = types.SimpleNamespace(get_hparams_by_name=lambda name: None)
    stub("hparams", HParams=hparams)
    folder = checkout / "efficient_vdvae_jax/model"
    link = load(folder / "adamax.py").scale_by_adamax
    stub("model")
    stub("model.adamax", scale_by_adamax=link)
    stub("model.schedules", NarrowCosineDecay=None)
    get_optimizer = load(folder / "optimizers.py", "model").get_optimizer

    def run(settings: Any, initial: Any, gradients: Any) -> Iterator[np.ndarray]:
        lr, b1, b2, eps, decay = settings.values()
        tx = get_optimizer("Adamax", lr, b1, b2, eps, decay > 0, decay, None)
        params: Any = jax.numpy.asarray(initial)
        state = tx.init(params)
        for gradient in gradients:
            updates, state = tx.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
            yield np.asarray(params)

    return run


RULES: dict[str, Callable[[Path], Run]] = {
    "efficient_vdvae_jax": efficient_vdvae_jax,
    "efficient_vdvae_torch": efficient_vdvae_torch,
    "fairseq": fairseq,
    "fairseq_uncorrected": lambda wheel: fairseq(wheel, corrected=False),
    "glow": glow,
    "lasagne": lasagne,
    "mt_dnn": mt_dnn,
    "nvae": nvae,
}


def main() -> None:
    """Record all cases of a rule."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rule", choices=RULES)
    parser.add_argument("source", type=Path, help="a checkout, or fairseq's wheel")
    parser.add_argument("directory", type=Path, nargs="?", default=DATA)
    arguments = parser.parse_args()
    rule = arguments.rule
    record = record_leaves(RULES[rule](arguments.source))
    overview = {"steps": STEPS, "cases": CASES}
    record_all(rule, CASES, record, overview, arguments.directory / rule)


if __name__ == "__main__":
    main()
