"""Convert optimizer state between libraries or state dtypes, to resume a run elsewhere.

See docs/interop.md for which function and optimizer to use, how parameters are matched
and converted, and what is refused.
"""

from adamax_optax.interop._keras import from_keras, to_keras
from adamax_optax.interop._kernels import kernels_from_flax, kernels_to_flax
from adamax_optax.interop._mindspore import from_mindspore, to_mindspore
from adamax_optax.interop._optax import from_optax, to_optax
from adamax_optax.interop._paddle import from_paddle, to_paddle
from adamax_optax.interop._states import leaf_names
from adamax_optax.interop._torch import from_torch, to_torch
from adamax_optax.moments import cast_state

__all__ = [
    "cast_state",
    "from_keras",
    "from_mindspore",
    "from_optax",
    "from_paddle",
    "from_torch",
    "kernels_from_flax",
    "kernels_to_flax",
    "leaf_names",
    "to_keras",
    "to_mindspore",
    "to_optax",
    "to_paddle",
    "to_torch",
]
