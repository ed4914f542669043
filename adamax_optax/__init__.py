"""Adamax for JAX: the numbers of MindSpore and PyTorch, as Optax transformations."""

from adamax_optax import compat, interop, lr_scheduler, schedules
from adamax_optax._alias import adamax, adamaxw, scale_by_adamax
from adamax_optax._bias_correction import (
    ScaleByBiasCorrectionState,
    scale_by_bias_correction,
)
from adamax_optax._infinity_norm import (
    ScaleByInfinityNormState,
    scale_by_infinity_norm,
)
from adamax_optax._param_groups import param_groups
from adamax_optax._reduced_norm import ScaleByReducedInfinityNormState
from adamax_optax._state_shardings import state_shardings
from adamax_optax._stochastic_rounding import (
    StochasticRoundingState,
    stochastic_rounding,
)
from adamax_optax.compat import Adamax

__version__ = "0.2.0.dev0"

__all__ = [
    "Adamax",
    "ScaleByBiasCorrectionState",
    "ScaleByInfinityNormState",
    "ScaleByReducedInfinityNormState",
    "StochasticRoundingState",
    "adamax",
    "adamaxw",
    "compat",
    "interop",
    "lr_scheduler",
    "param_groups",
    "scale_by_adamax",
    "scale_by_bias_correction",
    "scale_by_infinity_norm",
    "schedules",
    "state_shardings",
    "stochastic_rounding",
]
