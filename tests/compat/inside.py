"""What the class keeps inside, for the few tests that are about that."""

from typing import Any

import jax

import adamax_optax as ao
from adamax_optax.compat import _buckets, _moments, _step

# Parameters of up to SMALL elements share arrays of up to BUFFER elements, and up to
# ALIKE of one shape share one.
SMALL, BUFFER, ALIKE = _buckets.SMALL, _buckets.BUFFER, _buckets.ALIKE


def shared(optimizer: ao.Adamax) -> list[tuple[int, ...]]:
    """Return, for each array of moments, the numbers of the parameters in it."""
    return [piece for bucket in optimizer._buckets for piece in bucket.pieces]


def moments(optimizer: ao.Adamax) -> list[Any]:
    """Return the states of moments that the optimizer keeps."""
    return [bucket.moments for bucket in optimizer._buckets]


def arrays(optimizer: ao.Adamax) -> list[jax.Array]:
    """Return their arrays: m and u, or their codes."""
    return jax.tree.leaves([_moments.columns(x) for x in moments(optimizer)])


def compiled_steps() -> int:
    """Return how many programs there are for steps without `donate`."""
    keeping: Any = _step._keeping
    return keeping._cache_size()


def count_compilations(monkeypatch: Any) -> Any:
    """Return a function that counts compilations of the step since the last call."""
    traced: list[Any] = []
    trace = _step._step_bucket

    def spy(*args):
        traced.append(args)
        return trace(*args)

    def count():
        new = len(traced)
        traced.clear()
        return new

    monkeypatch.setattr(_step, "_step_bucket", spy)
    return count


def record_programs(monkeypatch: Any, donate: bool) -> list[tuple[Any, Any]]:
    """Return a list that gets the compiled program of each step and its arguments."""
    seen: list[tuple[Any, Any]] = []
    name = "_overwriting" if donate else "_keeping"
    original = getattr(_step, name)

    def spy(*args):
        seen.append((original.lower(*args).compile(), args))
        return original(*args)

    monkeypatch.setattr(_step, name, spy)
    return seen
