"""Adamax for training loops that come from MindSpore or PyTorch.

`Adamax` takes the arguments of `mindspore.experimental.optim.Adamax` and
`torch.optim.Adamax`, gives the same numbers, and holds parameters and state itself, so
a training loop can be ported line by line. For new JAX code use `adamax_optax.adamax`:
a pure function that you can compile into the training step. This class drives it.

The guide is docs/porting.md: both libraries line by line, what "in place" means,
groups, gradients, state dicts, and every difference from MindSpore and PyTorch.
"""

from adamax_optax.compat._optimizer import Adamax

__all__ = ["Adamax"]
