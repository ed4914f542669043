"""States of Adamax from one form into another."""

from adamax_optax.interop._cast_state import cast_state

__all__ = ["cast_state"]
