"""What the class keeps inside, for the few tests that are about that."""

from typing import Any

import jax

import adamax_optax as ao
from adamax_optax import _stacks
from adamax_optax.compat import _plan, _step

Program = _step.Program

# Parameters of up to SMALL elements are stacked, up to STACK of one shape.
SMALL, STACK = _stacks.SMALL, _stacks.LEAVES
# Of the others, those of up to JOINED elements are joined, up to STACK of one group.
JOINED = _plan.JOINED


def shared(optimizer: ao.Adamax) -> list[tuple[int, ...]]:
    """Return, for each array of moments, the numbers of the parameters in it."""
    return [piece.numbers for piece in _plan.pieces_of(optimizer._program.specs)]


def arrays(optimizer: ao.Adamax) -> list[jax.Array]:
    """Return the arrays of m and u, or of their codes."""
    moments, _, _ = optimizer._state[0]
    return jax.tree.leaves(moments)


def state(optimizer: ao.Adamax) -> list[jax.Array]:
    """Return all arrays of the state."""
    return jax.tree.leaves(optimizer._state[0])


def count_compilations(monkeypatch: Any) -> Any:
    """Return a function that counts traces of a step since the last call."""
    traced: list[Any] = []
    trace = _step.Program._step

    def spy(*args):
        traced.append(args)
        return trace(*args)

    def count():
        new = len(traced)
        traced.clear()
        return new

    monkeypatch.setattr(_step.Program, "_step", spy)
    return count


def lowered(optimizer: ao.Adamax, gradients: list[Any], stepping: Any = None) -> Any:
    """Return the lowered program of a step, whose parameters are in one list."""
    program = optimizer._program
    overwritten: Any = (optimizer._state[0],)
    params: Any = optimizer._layout.read()
    if optimizer._donate:
        overwritten, params = (*overwritten, params), None
    return program._overwriting.lower(
        overwritten, params, gradients, optimizer._table(lambda: None), stepping
    )
