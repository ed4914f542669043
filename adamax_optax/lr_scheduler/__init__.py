"""MindSpore's and PyTorch's learning-rate scheduler classes, for `Adamax`.

Names, arguments and defaults are those of
``mindspore.experimental.optim.lr_scheduler``, and of PyTorch for `OneCycleLR` and
`ChainedScheduler`, which MindSpore lacks; the numbers are PyTorch's. A scheduler
reads and sets ``optimizer.param_groups[i]["lr"]``, which the next optimizer step uses
without recompiling. Step it once per epoch, after the optimizer:

>>> import adamax_optax as ao
>>> import jax.numpy as jnp
>>> optimizer = ao.Adamax(jnp.zeros(3), lr=0.05)
>>> scheduler = ao.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
>>> for epoch in range(4):
...     params = optimizer(jnp.ones(3))
...     print(*scheduler.get_last_lr())
...     scheduler.step()
0.05
0.05
0.025
0.025

The classes do not work inside `jax.jit`. There, and with Optax, use the same curves
from `adamax_optax.schedules`.

Each class lists under "Differences" where MindSpore and PyTorch disagree. It follows
MindSpore's documentation where that is explicit, and PyTorch otherwise.
"""

from adamax_optax.lr_scheduler._base import LRScheduler
from adamax_optax.lr_scheduler._cosine import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
)
from adamax_optax.lr_scheduler._cyclic import CyclicLR
from adamax_optax.lr_scheduler._factor import (
    ConstantLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from adamax_optax.lr_scheduler._lambda import LambdaLR, MultiplicativeLR
from adamax_optax.lr_scheduler._one_cycle import OneCycleLR
from adamax_optax.lr_scheduler._plateau import ReduceLROnPlateau
from adamax_optax.lr_scheduler._sequential import ChainedScheduler, SequentialLR

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]
