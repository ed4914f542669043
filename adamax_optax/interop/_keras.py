"""Convert state to and from the variables of Keras's optimizers, 2 and 3."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from adamax_optax._arrays import to_numpy
from adamax_optax._checks import refuse
from adamax_optax.interop._states import open_state
from adamax_optax.interop._transfer import (
    Convert,
    Order,
    Saved,
    Words,
    in_step,
    names_in,
    put,
    read_named,
    take,
)

_WORDS = Words("iteration", "{}_momentum", "{}_norm")

# Names in Keras 2, and their equivalents in 3. The optimizer's own name comes first,
# unless `build` was called outside `apply_gradients`.
_KERAS_2 = {
    r"iteration:0": "iteration",
    r"(?:[^/]+/)?m/(.+):0": r"\1_momentum",
    r"(?:[^/]+/)?u/(.+):0": r"\1_norm",
}
_LEGACY = {
    r"[^/]+/iter:0": "iteration",
    r"[^/]+/(.+)/m:0": r"\1_momentum",
    r"[^/]+/(.+)/v:0": r"\1_norm",
}


def from_keras(
    variables: Iterable[Any] | Mapping[str, Any],
    opt_state: Any,
    *,
    order: Order | None = None,
    convert: Convert | None = None,
) -> Any:
    """Put the variables of Keras's Adamax into a state of this package.

    They may be those of Keras 3 (`keras.optimizers.Adamax`) or of Keras 2, which is
    TensorFlow's: `tf_keras.optimizers.Adamax` and `tf_keras.optimizers.legacy.Adamax`.
    Keras adds its epsilon outside the maximum, has another default for it, and
    decouples weight decay: docs/rules.md gives the optimizer that takes the same steps.
    Keras's kernels have Flax's layout, on every backend.

    Args:
      variables: Keras's ``optimizer.variables`` (a method in the legacy class), or a
        mapping from their names to arrays:
        ``{v.name: v.numpy() for v in optimizer.variables}``.
      opt_state: The state to fill; see `from_torch`.
      order: As in `from_torch`. Numbers and order are those of
        ``model.trainable_variables``; names are Keras 2's, ``conv/kernel``, or those of
        Keras 3's optimizer, which writes ``_`` for the ``/`` in a path. By default
        parameters are matched by name, or by number if the leaves are those of a list
        such as ``[v.value for v in model.trainable_variables]``.
      convert: As in `from_torch`.

    Returns:
      The filled state; see `from_torch`.

    Raises:
      ValueError: If Keras accumulates gradients, or listing everything that is missing,
        left over or does not fit.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp, numpy as np, optax
      >>> variables = {
      ...     "iteration": 3,
      ...     "learning_rate": 0.001,
      ...     "dense_kernel_momentum": np.ones((4, 2)),
      ...     "dense_kernel_norm": np.ones((4, 2)),
      ... }
      >>> tx = ao.adamax(1e-3, eps=0.0, eps_outside=1e-7)
      >>> state = ao.interop.from_keras(variables, tx.init([jnp.ones((4, 2))]))
      >>> int(optax.tree_utils.tree_get(state, "count"))
      3
    """
    problems: list[str] = []
    values = _by_name(variables, problems)
    entries = read_named(values, _WORDS, problems)
    names = dict(enumerate(names_in(values, _WORDS)))
    by_number = {key: entries[name] for key, name in names.items() if name in entries}
    saved = Saved("The list of variables", list(names), names, by_number, problems)
    return put(saved, opt_state, order, convert)


def to_keras(
    state: Any,
    variables: Iterable[Any] | Mapping[str, Any],
    *,
    order: Order | None = None,
    convert: Convert | None = None,
) -> list[np.ndarray]:
    """Turn a state of this package into weights for Keras's Adamax, 2 or 3.

    .. code-block:: python

        optimizer.build(model.trainable_variables)
        weights = ao.interop.to_keras(state, optimizer.variables)
        optimizer.set_weights(weights)

    Args:
      state: See `to_torch`.
      variables: The variables of Keras's optimizer, after `build`.
      order: As in `from_keras`.
      convert: As in `to_torch`.

    Returns:
      An array for each variable. Only the moments and the step count are new: others,
      such as the learning rate, keep their values.

    Raises:
      ValueError: If leaves have taken different numbers of steps (Keras has one count),
        or listing everything that does not fit.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp, numpy as np
      >>> variables = {"iteration": 0, "learning_rate": 0.001}
      >>> variables |= {f"dense_bias_{x}": np.zeros(2) for x in ("momentum", "norm")}
      >>> state = ao.adamax().init([jnp.ones(2)])
      >>> [x.shape for x in ao.interop.to_keras(state, variables)]
      [(), (), (2,), (2,)]
    """
    problems: list[str] = []
    values = _by_name(variables, problems)
    if _WORDS.step not in values:
        problems.append(f"there is no {_WORDS.step!r}")
    refuse("The list of variables", problems)
    names = dict(enumerate(names_in(values, _WORDS)))
    entries = take(open_state(state), list(names), names, order, convert)
    weights = {name: to_numpy(value) for name, value in values.items()}
    step, stepped = in_step(entries, "Keras")
    weights[_WORDS.step] = np.asarray(step, weights[_WORDS.step].dtype)
    for key, entry in stepped.items():
        weights[_WORDS.mu.format(names[key])] = entry.mu
        weights[_WORDS.nu.format(names[key])] = entry.nu
    return list(weights.values())


def _by_name(variables, problems):
    """Return a mapping from Keras 3's names to variables, in their order."""
    if isinstance(variables, Mapping):
        named = list(variables.items())
    else:
        named = [(variable.name, variable) for variable in variables]
    legacy = any(name.endswith("/iter:0") for name, _ in named)
    words = _LEGACY if legacy else _KERAS_2
    values = {_in_keras_3(name, words): variable for name, variable in named}
    if len(values) < len(named):
        problems.append("several variables have the same name")
    if any(name.endswith("_gradient_accumulator") for name in values):
        problems.append(
            "with gradient_accumulation_steps, Keras counts calls and not steps"
        )
    return values


def _in_keras_3(name, words):
    """Return Keras 3's name for a variable, or `name` if there is none."""
    for pattern, word in words.items():
        if match := re.fullmatch(pattern, name):
            return match.expand(word)
    return name
