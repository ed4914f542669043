"""Adamax as a class, for training loops ported from MindSpore or PyTorch.

For new JAX code use `adamax_optax.adamax`, which can be compiled into the training
step.
"""

from adamax_optax.compat._optimizer import Adamax

__all__ = ["Adamax"]
