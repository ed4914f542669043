"""Match gradients with parameters."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax

from adamax_optax import _nnx
from adamax_optax._arrays import is_array
from adamax_optax._checks import check_fit
from adamax_optax.compat._parameters import Path, flatten, is_inexact, label, names


class Matcher:
    """Matches gradients with parameters, and caches the result for the next step.

    Args:
      paths: The path of each parameter, through all groups.
      owned: Returns the array or variable of each parameter.
    """

    def __init__(
        self, paths: Sequence[Path], owned: Callable[[], Sequence[Any]]
    ) -> None:
        self._paths = paths
        self._owned = owned
        # Of the last step: the structure of the gradients, their module, the numbers of
        # the parameters, and which gradients these have, `None` if all in order.
        self._last: tuple[Any, Any, list[int], list[int] | None] | None = None

    def match(self, gradients: Any, module: Any) -> tuple[list[int], list[Any]]:
        """Return the numbers of the parameters that have a gradient, and the gradients.

        Both are in the order of the parameters. The arguments are those of
        `Adamax.step`. Raise `ValueError` if they do not fit, naming the first parameter
        without gradient or gradient without parameter.
        """
        if gradients is None or isinstance(gradients, Iterator):
            raise _no_gradients(gradients)
        leaves, treedef = jax.tree.flatten(gradients)
        if leaves and leaves[0] is gradients and not is_array(gradients):
            raise _no_gradients(gradients)
        last = self._last
        if last is None or treedef != last[0] or module is not last[1]:
            found = self._find(gradients, module)
            own = {k: i for i, k in enumerate(found) if k is not None}
            numbers = sorted(own)
            order = [own[k] for k in numbers]
            picked = None if order == list(range(len(found))) else order
            last = self._last = treedef, module, numbers, picked
        _, _, numbers, picked = last
        return numbers, leaves if picked is None else [leaves[i] for i in picked]

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

        wanted = self._paths if module is None else self._paths_in(module)
        for path, own in zip(wanted, self._paths, strict=True):
            if lacks(path):
                raise self._misfit(f"{label(own)} has no gradient")
        numbers = {path: k for k, path in enumerate(wanted)}
        present = [path for path in found if path not in absent]
        for path in present:
            if path not in numbers and module is None:
                raise self._misfit(f"there is no {label(path)}")
        return [numbers.get(path) for path in present]

    def _paths_in(self, module):
        """Return the path of each parameter in a module that has all of them."""
        paths = {}
        if _nnx.is_node(module):
            paths = {id(v): names(path) for path, v in _nnx.variables_of(module)}
        owned = self._owned()
        for path, variable in zip(self._paths, owned, strict=True):
            if id(variable) not in paths:
                raise ValueError(
                    "module must be an nnx.Module with all parameters, but "
                    f"{label(path)} is not one of its nnx.Param; got "
                    f"{type(module).__name__}."
                )
        return [paths[id(variable)] for variable in owned]

    def _misfit(self, what):
        return ValueError(
            "gradients must have the structure of the parameters (with groups: one "
            f"entry per group), or be a sequence of {len(self._paths)} arrays in their "
            f"order, with None for a parameter without gradient; {what}. For the "
            "gradients of a whole module, pass it too: step(gradients, module)."
        )


def _no_gradients(gradients):
    return ValueError(
        "step must be given the gradients, as jax.grad or nnx.grad returns them: there "
        "is no backward() that stores them in the parameters, and closures are not "
        f"called. Got {gradients!r}."
    )


def check(gradient: Any, param: Any, path: Path) -> None:
    """Raise `ValueError` unless a gradient fits the parameter at `path`."""
    refuse_traced([gradient])
    if not is_array(gradient):
        raise ValueError(
            f"The gradient of {label(path)} must be a JAX or NumPy array, got "
            f"{gradient!r}."
        )
    if not is_inexact(gradient):
        raise ValueError(
            f"The gradient of {label(path)} has dtype {gradient.dtype}, which is "
            "neither floating nor complex."
        )
    check_fit(f"The gradient of {label(path)}", gradient, param, "parameter")


def refuse_traced(arrays: Iterable[Any]) -> None:
    """Raise `ValueError` if any array was made inside a function that JAX traces."""
    if any(isinstance(array, jax.core.Tracer) for array in arrays):
        raise ValueError(
            "An Adamax object holds its own state and so cannot step inside jit, grad "
            "or scan. Compute the gradients there and step outside, or use "
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
