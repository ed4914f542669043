"""How the moments m and u are stored and updated: g -> m / u.

`scale_by_infinity_norm` stores them in full precision. With a `state_dtype`,
`_reduced_norm.py` stores 16-bit codes instead: two per parameter (`_half_codes.py`) or
one (`_word_codes.py`).
"""

from adamax_optax.moments._cast_state import (
    Moments,
    cast_state,
    is_moments,
    map_moments,
    require_moments,
    restore_codes,
)
from adamax_optax.moments._infinity_norm import (
    ScaleByInfinityNormState,
    scale_by_infinity_norm,
)
from adamax_optax.moments._reduced_norm import (
    ScaleByReducedInfinityNormState,
    check_state,
    codec_for,
    state_dtype_of,
)
from adamax_optax.moments._word_codes import BOUND_MAX

__all__ = [
    "BOUND_MAX",
    "Moments",
    "ScaleByInfinityNormState",
    "ScaleByReducedInfinityNormState",
    "cast_state",
    "check_state",
    "codec_for",
    "is_moments",
    "map_moments",
    "require_moments",
    "restore_codes",
    "scale_by_infinity_norm",
    "state_dtype_of",
]
