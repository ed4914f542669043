"""What Adamax remembers of one parameter, whatever library it is in."""

from typing import Any, NamedTuple

Betas = tuple[float, float]
DEFAULT_BETAS: Betas = (0.9, 0.999)

LAST_COUNT = 2**31 - 1  # where the count of a functional state stays, an int32


class Entry(NamedTuple):
    """What Adamax remembers of one parameter.

    Attributes:
      step: The number of steps taken.
      mu: The paper's m.
      nu: The paper's u.
      betas: The decay rates of both, which set the range of the 16-bit word.
    """

    step: int
    mu: Any
    nu: Any
    betas: Betas = DEFAULT_BETAS
