"""How m and u are kept, and one step of them: g -> m / u.

`scale_by_infinity_norm` keeps them as they are; with a `state_dtype` they are codes of
16 bits, two for each parameter (`_half_codes.py`) or one (`_word_codes.py`), which
`_reduced_norm.py` drives.
"""

from adamax_optax.moments._cast_state import (
    Moments,
    cast_state,
    is_moments,
    require_moments,
    restore_codes,
    state_dtype_of,
)
from adamax_optax.moments._infinity_norm import (
    ScaleByInfinityNormState,
    scale_by_infinity_norm,
)
from adamax_optax.moments._reduced_norm import (
    ScaleByReducedInfinityNormState,
    codec_for,
)

__all__ = [
    "Moments",
    "ScaleByInfinityNormState",
    "ScaleByReducedInfinityNormState",
    "cast_state",
    "codec_for",
    "is_moments",
    "require_moments",
    "restore_codes",
    "scale_by_infinity_norm",
    "state_dtype_of",
]
