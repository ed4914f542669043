"""Convert state to and from Optax's own Adamax."""

import functools
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamax_optax import _nnx
from adamax_optax._bias_correction import ScaleByBiasCorrectionState
from adamax_optax._checks import refuse
from adamax_optax.interop._states import in_form_of
from adamax_optax.moments import (
    Moments,
    cast_state,
    is_moments,
    map_moments,
    require_moments,
)


def from_optax(
    optax_state: optax.OptState, opt_state: optax.OptState
) -> optax.OptState:
    """Put a state of Optax's Adamax into a state of this package.

    `adamax` continues `optax.adamax`, `adamaxw` continues `optax.adamaxw`, and
    `scale_by_adamax` continues `optax.scale_by_adamax`. Everything around them
    (`optax.chain`, `inject_hyperparams`, `MultiSteps`, `partition`, ...) must be the
    same on both sides; its state (accumulated gradients, schedules, hyperparameters set
    live) is carried over too. Works under `jit`.

    Args:
      optax_state: The state of Optax's optimizer. Make sure that it is an Adamax:
        Optax's Adam has the same `optax.ScaleByAdamState`, where `nu` is a mean
        of squares.
      opt_state: The state to fill, such as ``tx.init(params)``; of any `state_dtype`.

    Returns:
      The state as if it had taken Optax's steps. Fields that only `opt_state` has are
      unchanged, except for schedules' counts, which become the step count.

    Raises:
      ValueError: Listing everything that is missing, does not fit, or has no
        counterpart in `opt_state`.

    Example:
      >>> import adamax_optax as ao, jax, jax.numpy as jnp, optax
      >>> params, gradients = jnp.ones(2), jnp.array([1.0, -3.0])
      >>> theirs = optax.adamax(0.1)
      >>> updates, state = theirs.update(gradients, theirs.init(params), params)
      >>> ours = ao.adamax(0.1)
      >>> state = ao.interop.from_optax(state, ours.init(params))
      >>> updates, state = ours.update(gradients, state, params)
      >>> print(f"{updates[0]:.3f} after {optax.tree_utils.tree_get(state, 'count')}")
      -0.100 after 2
    """
    _check(optax_state, opt_state)
    return _carried(optax_state, opt_state)


def to_optax(state: optax.OptState, optax_state: optax.OptState) -> optax.OptState:
    """Put a state of this package into a state of Optax's Adamax.

    The inverse of `from_optax`. Optax keeps moments in the parameters' dtype. It has no
    coupled weight decay, so a run of `adamax` continues without it.

    Args:
      state: The state of this package, of any `state_dtype`.
      optax_state: The state of Optax's optimizer to fill, such as ``tx.init(params)``.

    Returns:
      The filled state; see `from_optax`.

    Raises:
      ValueError: See `from_optax`.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp, optax
      >>> params = jnp.ones(2)
      >>> ours, theirs = ao.adamax(0.1), optax.adamax(0.1)
      >>> _, state = ours.update(params, ours.init(params), params)
      >>> state = ao.interop.to_optax(state, theirs.init(params))
      >>> print(optax.tree_utils.tree_get(state, "count"))
      1
    """
    _check(optax_state, state)
    return _carried(state, optax_state)


def _check(optax_state, ours):
    """Raise `ValueError` unless one state holds Optax's moments and the other ours."""
    require_moments(ours)
    if not any(map(_is_optax, jax.tree.leaves(optax_state, is_leaf=_is_optax))):
        raise ValueError(
            "optax_state holds no optax.ScaleByAdamState, where Optax's Adamax keeps "
            f"its moments; got {jax.tree.structure(optax_state)}."
        )


def _is_optax(x):
    return isinstance(x, optax.ScaleByAdamState)


class _Leaf(NamedTuple):
    """A leaf of a state."""

    address: tuple[str, ...]  # its path, in terms that Optax's states and ours share
    value: Any
    # "mu", "nu" or "count" for Adamax's own fields, "schedule" for the count of a
    # schedule, "setting" for a hyperparameter, otherwise "".
    field: str


def _carried(source, target):
    """Return `target` with the values of `source` at the same addresses."""
    found = {leaf.address: leaf for leaf in _leaves(_wide(source))}
    wide = _wide(target)
    places = list(_leaves(wide))
    addresses = {place.address for place in places}
    problems = [
        f"{'.'.join(address)} has no counterpart"
        for address, leaf in found.items()
        if address not in addresses and not _is_off(leaf)
    ]
    counts = [leaf.value for leaf in found.values() if leaf.field == "count"]
    values = []
    for place in places:
        value = place.value
        if place.address in found:
            value = _fitted(found[place.address].value, place, problems)
        elif place.field == "schedule":
            value = functools.reduce(jnp.maximum, counts, value)
        elif place.field in ("mu", "nu", "count"):
            problems.append(f"{'.'.join(place.address)} is missing")
        values.append(value)
    refuse("The state", problems)
    filled = jax.tree.unflatten(jax.tree.structure(wide), values)
    return jax.tree.map(
        lambda node, new: in_form_of(node, new) if is_moments(node) else new,
        target,
        filled,
        is_leaf=is_moments,
    )


def _wide(state):
    """Return a state with our moments, if it has any, decoded."""
    return map_moments(lambda moments: cast_state(moments, None), state)


def _fitted(value, place, problems):
    """Return `value` in the dtype of its place, or add to `problems`."""
    template = place.value
    if place.field == "nu" and not jnp.iscomplexobj(template):
        value = value.real  # Optax's modulus has a complex dtype
    alike = place.field == "nu" or jnp.iscomplexobj(value) == jnp.iscomplexobj(template)
    if value.shape != template.shape or not alike:
        problems.append(
            f"{'.'.join(place.address)} must have the shape {template.shape} and a "
            f"dtype like {template.dtype}, got {value.shape} and {value.dtype}"
        )
        return value
    is_key = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    return value if is_key else jnp.asarray(value, template.dtype)


def _leaves(
    state: Any, above: tuple[str, ...] = (), field: str = ""
) -> Iterator[_Leaf]:
    """Yield the leaves of a state, in the order of `jax.tree.leaves`.

    Nested chains are flattened and links numbered by kind, so that links without arrays
    between them do not change addresses.
    """
    seen: Counter[str] = Counter()
    for link in jax.tree.leaves(state, is_leaf=lambda x: type(x) is not tuple):
        if hasattr(link, "_fields"):
            kind = "adamax" if _is_of_adamax(link) else type(link).__name__
            # Our count is a separate link after its moments: it gets their number.
            seen[kind] += not isinstance(link, ScaleByBiasCorrectionState)
            at = (*above, f"{kind}#{seen[kind]}")
            for name in link._fields:
                inner = field or _field(link, name)
                yield from _leaves(getattr(link, name), (*at, name), inner)
            continue
        at = above
        if type(state) is tuple:
            seen["item"] += 1
            at = (*above, f"item#{seen['item']}")
        for path, child in _children(link):
            if child is link:
                yield _Leaf(at, link, field)
            else:
                yield from _leaves(child, (*at, *path), field)


def _children(node):
    """Return (path, child) for the children of a node; for a leaf, ([], itself)."""
    found, _ = jax.tree_util.tree_flatten_with_path(
        node, is_leaf=lambda x: x is not node
    )
    # An NNX variable and the array in it share one address.
    inside = (_nnx.VALUE,)
    return [
        ([] if path == inside else [jax.tree_util.keystr(path, simple=True)], child)
        for path, child in found
    ]


def _is_of_adamax(link):
    kinds = Moments | optax.ScaleByAdamState | ScaleByBiasCorrectionState
    return isinstance(link, kinds)


def _field(link, name):
    if _is_of_adamax(link):
        return name
    if name == "hyperparams":
        return "setting"
    return "schedule" if link._fields == ("count",) else ""


def _is_off(leaf):
    """Return whether a leaf is a hyperparameter of 0, which needs no counterpart."""
    is_known = not isinstance(leaf.value, jax.core.Tracer)
    return leaf.field == "setting" and is_known and bool(jnp.all(leaf.value == 0))
