"""Match gradients with parameters."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from adamax_optax import _nnx
from adamax_optax._arrays import is_array
from adamax_optax._checks import check_fit
from adamax_optax.compat._parameters import Path, flatten, is_inexact, label, names


class Matcher:
    """Matches gradients with parameters, and caches the result for the next step.

    Args:
      paths: The path of each parameter, through all groups.
      shapes: Its shape.
      variables: Its variable, if all parameters are of NNX; otherwise `None`.
      roots: The path of the module or variable that was passed and that it belongs to.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        shapes: Sequence[tuple[int, ...]],
        variables: Sequence[Any] | None,
        roots: Sequence[Path],
    ) -> None:
        self._paths = paths
        self._shapes = shapes
        self._variables = variables
        self._roots = roots
        self._last: tuple[Any, Any] | None = None
        self._numbers: list[int] = []
        self._picked: list[int] | None = None

    def match(self, gradients: Any, module: Any) -> tuple[list[int], list[Any]]:
        """Return the numbers of the parameters that have a gradient, and the gradients.

        Args:
          gradients: A tree with the structure of the parameters, or a flat sequence
            in their order. `None`, for a leaf or a subtree, is no gradient. If all
            parameters are of NNX, also the gradients of a whole module that has them.
          module: That module, or `None` if the names and shapes of the parts tell
            where they are in it.

        Raises:
          ValueError: If neither fits, naming the first parameter without a gradient or
            the first gradient without a parameter.
        """
        if gradients is None or isinstance(gradients, Iterator):
            raise _no_gradients(gradients)
        leaves, treedef = jax.tree.flatten(gradients)
        if leaves and leaves[0] is gradients and not is_array(gradients):
            raise _no_gradients(gradients)
        last = self._last
        if last is None or treedef != last[0] or module is not last[1]:
            found = self._find(gradients, module)
            self._numbers = [k for k in found if k is not None]
            everything = len(self._numbers) == len(found)
            picked = [i for i, k in enumerate(found) if k is not None]
            self._picked = None if everything else picked
            self._last = treedef, module
        if self._picked is not None:
            leaves = [leaves[i] for i in self._picked]
        return self._numbers, leaves

    def _find(self, gradients, module):
        """Return the number of each gradient's parameter; `None` if it has none."""
        if module is None and _is_flat(gradients, len(self._paths)):
            return [k for k, leaf in enumerate(gradients) if leaf is not None]
        found, _ = flatten(gradients, with_none=True)
        absent = {path for path, leaf in found.items() if leaf is None}

        def lacks(path):
            # `None` may also replace a subtree that contains the parameter.
            above = (path[:n] for n in range(len(path)))
            return path not in found and absent.isdisjoint(above)

        wanted, whole = self._paths, module is not None
        if whole:
            wanted = self._paths_in(module)
        elif self._variables is not None and any(map(lacks, wanted)):
            places = self._places_in(found)
            wanted, whole = (places, True) if places else (wanted, False)
        for path, own in zip(wanted, self._paths, strict=True):
            if lacks(path):
                raise self._misfit(f"{label(own)} has no gradient")
        numbers = {path: k for k, path in enumerate(wanted)}
        present = [path for path in found if path not in absent]
        for path in present:
            if path not in numbers and not whole:
                raise self._misfit(f"there is no {label(path)}")
        return [numbers.get(path) for path in present]

    def _paths_in(self, module):
        """Return the path of each parameter in a module that has all of them."""
        paths = {}
        if _nnx.is_node(module):
            paths = {id(v): names(path) for path, v in _nnx.variables_of(module)}
        variables = self._variables or [None] * len(self._paths)
        for path, variable in zip(self._paths, variables, strict=True):
            if id(variable) not in paths:
                raise ValueError(
                    "module must be an nnx.Module with all parameters, but "
                    f"{label(path)} is not one of its nnx.Param; got "
                    f"{type(module).__name__}."
                )
        return [paths[id(variable)] for variable in variables]

    def _places_in(self, found):
        """Return where the parameters are in the gradients of a whole module.

        Returns `None` if a part is nowhere, and raises `ValueError` if it may be in
        several places.
        """
        parts: dict[Path, list[int]] = {}
        for k, root in enumerate(self._roots):
            parts.setdefault(root, []).append(k)
        prefixes = {path[:n] for path in found for n in range(len(path) + 1)}
        wanted = list(self._paths)
        for root, numbers in parts.items():
            rest = [self._paths[k][len(root) :] for k in numbers]
            fitting = [
                prefix
                for prefix in sorted(prefixes)
                if all(
                    prefix + path in found
                    and jnp.shape(found[prefix + path]) == self._shapes[k]
                    for path, k in zip(rest, numbers, strict=True)
                )
            ]
            if not fitting:
                return None
            if len(fitting) > 1:
                places = ", ".join("".join(prefix) for prefix in fitting)
                raise ValueError(
                    f"{label(root)} may be any of {places} of the gradients. Pass the "
                    "module that they are of as well: step(gradients, module)."
                )
            for path, k in zip(rest, numbers, strict=True):
                wanted[k] = fitting[0] + path
        return wanted if len(set(wanted)) == len(wanted) else None

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
