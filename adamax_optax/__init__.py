"""Adamax for JAX: the numbers of MindSpore and PyTorch, as Optax transformations."""

from adamax_optax._alias import adamax, adamaxw, scale_by_adamax
from adamax_optax._bias_correction import (
    ScaleByBiasCorrectionState,
    scale_by_bias_correction,
)
from adamax_optax._infinity_norm import (
    ScaleByInfinityNormState,
    scale_by_infinity_norm,
)

__version__ = "0.1.0.dev0"

__all__ = [
    "ScaleByBiasCorrectionState",
    "ScaleByInfinityNormState",
    "adamax",
    "adamaxw",
    "scale_by_adamax",
    "scale_by_bias_correction",
    "scale_by_infinity_norm",
]
