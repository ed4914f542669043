"""Match gradients with parameters."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax

from adamax_optax import _nnx
from adamax_optax._arrays import is_array
from adamax_optax._checks import check_fit
from adamax_optax.compat._parameters import Path, flatten, is_inexact, label


class Matcher:
    """Matches gradients with parameters, and caches the result for the next step.

    Args:
      paths: The paths of all parameters, through all groups.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._treedef: Any = None
        self._numbers: list[int] = []

    def match(self, gradients: Any) -> tuple[list[int], list[Any]]:
        """Return the numbers of the parameters that have a gradient, and the gradients.

        Args:
          gradients: A tree with the structure of the parameters, or a flat sequence
            in their order. `None`, for a leaf or a subtree, is no gradient.

        Raises:
          ValueError: If neither fits, naming the first parameter without a gradient or
            the first gradient without a parameter.
        """
        if gradients is None or isinstance(gradients, Iterator):
            raise _no_gradients(gradients)
        leaves, treedef = jax.tree.flatten(gradients)
        if leaves and leaves[0] is gradients and not is_array(gradients):
            raise _no_gradients(gradients)
        if self._treedef is None or treedef != self._treedef:
            self._numbers = self._find(gradients)
            self._treedef = treedef
        return self._numbers, leaves

    def _find(self, gradients):
        if _is_flat(gradients, len(self._paths)):
            return [k for k, leaf in enumerate(gradients) if leaf is not None]
        found, _ = flatten(gradients, with_none=True)
        absent = {path for path, leaf in found.items() if leaf is None}
        for path in self._paths:
            # `None` may also replace a subtree that contains the parameter.
            above = (path[:n] for n in range(len(path)))
            if path not in found and absent.isdisjoint(above):
                raise self._misfit(f"{label(path)} has no gradient")
        numbers = {path: k for k, path in enumerate(self._paths)}
        present = [path for path in found if path not in absent]
        for path in present:
            if path not in numbers:
                raise self._misfit(f"there is no {label(path)}")
        return [numbers[path] for path in present]

    def _misfit(self, what):
        return ValueError(
            "gradients must have the structure of the parameters (with groups: one "
            f"entry per group), or be a sequence of {len(self._paths)} arrays in their "
            f"order, with None for a parameter without gradient; {what}."
        )


def _no_gradients(gradients):
    return ValueError(
        "step must be given the gradients, as jax.grad or nnx.grad returns them: there "
        "is no backward() that stores them in the parameters, and closures are not "
        f"called. Got {gradients!r}."
    )


def check(gradient: Any, param: Any, path: Path) -> None:
    """Raise `ValueError` unless a gradient fits the parameter at `path`."""
    if isinstance(gradient, jax.core.Tracer):
        raise inside_trace()
    if not is_array(gradient):
        raise ValueError(
            f"The gradient of {label(path)} must be an array of JAX or NumPy, got "
            f"{gradient!r}."
        )
    if not is_inexact(gradient):
        raise ValueError(
            f"The gradient of {label(path)} has dtype {gradient.dtype}, which is "
            "neither floating nor complex."
        )
    check_fit(f"The gradient of {label(path)}", gradient, param, "parameter")


def inside_trace() -> ValueError:
    """Return the error of a step inside a function that JAX traces."""
    return ValueError(
        "An Adamax object holds its own state and so cannot step inside jit, grad or "
        "scan. Compute the gradients there and step outside, or use "
        "adamax_optax.adamax, or this object's init and update."
    )


def _is_flat(gradients, count):
    return (
        isinstance(gradients, list | tuple)
        and len(gradients) == count
        and all(
            leaf is None or is_array(leaf) or _nnx.is_variable(leaf)
            for leaf in gradients
        )
    )
