"""Adamax as a class, for training loops ported from MindSpore or PyTorch.

See docs/porting.md for a guide and every difference from both libraries. For new JAX
code use `adamax_optax.adamax`, which can be compiled into the training step.
"""

from adamax_optax.compat._optimizer import Adamax

__all__ = ["Adamax"]
