"""Adamax for JAX: Optax transformations that match MindSpore and PyTorch."""

from adamax_optax import compat, interop, lr_scheduler, schedules
from adamax_optax._adamax import adamax, adamaxw, scale_by_adamax
from adamax_optax._bias_correction import (
    ScaleByBiasCorrectionState,
    scale_by_bias_correction,
)
from adamax_optax._lazy_rows import lazy_rows
from adamax_optax._param_groups import param_groups
from adamax_optax._sharding import state_shardings
from adamax_optax._stack_small_leaves import (
    stack_small_leaves,
    stack_state,
    unstack_state,
)
from adamax_optax._stacks import InStack, StackedLeaves
from adamax_optax._stochastic_rounding import (
    StochasticRoundingState,
    stochastic_rounding,
)
from adamax_optax.compat import Adamax
from adamax_optax.moments import (
    ScaleByInfinityNormState,
    ScaleByReducedInfinityNormState,
    scale_by_infinity_norm,
)

__version__ = "0.2.0"

__all__ = [
    "Adamax",
    "InStack",
    "ScaleByBiasCorrectionState",
    "ScaleByInfinityNormState",
    "ScaleByReducedInfinityNormState",
    "StackedLeaves",
    "StochasticRoundingState",
    "adamax",
    "adamaxw",
    "compat",
    "interop",
    "lazy_rows",
    "lr_scheduler",
    "param_groups",
    "scale_by_adamax",
    "scale_by_bias_correction",
    "scale_by_infinity_norm",
    "schedules",
    "stack_small_leaves",
    "stack_state",
    "state_shardings",
    "stochastic_rounding",
    "unstack_state",
]
