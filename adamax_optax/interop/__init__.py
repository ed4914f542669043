"""States of Adamax from one form into another."""

from adamax_optax.interop._cast_state import cast_state
from adamax_optax.interop._keras import from_keras, to_keras
from adamax_optax.interop._layout import kernels_from_flax, kernels_to_flax
from adamax_optax.interop._mindspore import from_mindspore, to_mindspore
from adamax_optax.interop._names import leaf_names
from adamax_optax.interop._torch import from_torch, to_torch

__all__ = [
    "cast_state",
    "from_keras",
    "from_mindspore",
    "from_torch",
    "kernels_from_flax",
    "kernels_to_flax",
    "leaf_names",
    "to_keras",
    "to_mindspore",
    "to_torch",
]
