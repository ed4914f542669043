"""State to and from Optax's own Adamax."""

import functools
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamax_optax._bias_correction import ScaleByBiasCorrectionState
from adamax_optax._checks import refuse
from adamax_optax.interop._states import in_form_of
from adamax_optax.moments import cast_state, is_moments, require_moments


def from_optax(
    optax_state: optax.OptState, opt_state: optax.OptState
) -> optax.OptState:
    """Go on with `adamax_optax` where `optax.adamax` or `optax.adamaxw` was.

    `adamax` goes on for `optax.adamax`, `adamaxw` for `optax.adamaxw`, and
    `scale_by_adamax` for `optax.scale_by_adamax`. What is around them (`optax.chain`,
    `inject_hyperparams`, `MultiSteps`, `partition`, ...) must be the same on both
    sides, and goes on as well: accumulated gradients, schedules, hyperparameters that
    were set live. Works under `jit`.

    Args:
      optax_state: The state of Optax's optimizer. Its moments are in an
        `optax.ScaleByAdamState`, which Optax's Adam has too: nothing shows whether
        `nu` is the norm of an Adamax, so make sure that it is.
      opt_state: The state to fill, as ``tx.init(params)`` returns it; of any
        `state_dtype`.

    Returns:
      The state, as if it had taken Optax's steps. What only `opt_state` has is as it
      was, but for counts of schedules, which take the step count.

    Raises:
      ValueError: With everything that is missing, does not fit or, being in
        `optax_state`, has no place in `opt_state`, in one message.

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
    """Go on with Optax's own Adamax where one of this package was.

    The inverse of `from_optax`. Optax keeps moments in the parameters' dtype, and has
    no coupled weight decay: a state of `adamax` with one goes on without it.

    Args:
      state: The state of this package, of any `state_dtype`.
      optax_state: The state to fill, as Optax's ``tx.init(params)`` returns it.

    Returns:
      The state of Optax's optimizer; see `from_optax`.

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
    """Raise unless one state has moments of Optax's, and the other moments of ours.

    Raises:
      ValueError: If one has none.
    """
    require_moments(ours)
    if not any(map(_is_optax, jax.tree.leaves(optax_state, is_leaf=_is_optax))):
        raise ValueError(
            "optax_state holds no optax.ScaleByAdamState, in which Optax's Adamax has "
            f"its moments; got {jax.tree.structure(optax_state)}."
        )


def _is_optax(x):
    return isinstance(x, optax.ScaleByAdamState)


class _Leaf(NamedTuple):
    """A leaf of a state.

    Attributes:
      address: Where it is, in words that are the same in Optax's states and in ours.
      value: The array.
      field: "mu", "nu" or "count" of moments; "schedule" of a count of one, "setting"
        of a hyperparameter; or "" for all else.
    """

    address: tuple[str, ...]
    value: Any
    field: str


def _carried(source, target):
    """Return `target` with what `source` holds at the same addresses."""
    found = {leaf.address: leaf for leaf in _leaves(_wide(source))}
    wide = _wide(target)
    places = list(_leaves(wide))
    addresses = {place.address for place in places}
    problems = [
        f"{_label(address)} has no place"
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
            problems.append(f"there is nothing for {_label(place.address)}")
        values.append(value)
    refuse("The state", problems)
    filled = jax.tree.unflatten(jax.tree.structure(wide), values)
    treedef: Any
    nodes, treedef = jax.tree.flatten(target, is_leaf=is_moments)
    return treedef.unflatten(
        in_form_of(node, new) if is_moments(node) else new
        for node, new in zip(
            nodes, jax.tree.leaves(filled, is_leaf=is_moments), strict=True
        )
    )


def _wide(state):
    """Return a state with its moments in at least float32, if they are ours."""
    ours = any(map(is_moments, jax.tree.leaves(state, is_leaf=is_moments)))
    return cast_state(state, None) if ours else state


def _fitted(value, place, problems):
    """Return a value in the dtype of the place that it goes to."""
    template = place.value
    if place.field == "nu" and not jnp.iscomplexobj(template):
        value = value.real  # of the modulus, which Optax has in complex numbers
    alike = place.field == "nu" or jnp.iscomplexobj(value) == jnp.iscomplexobj(template)
    if value.shape != template.shape or not alike:
        problems.append(
            f"{_label(place.address)} must have the shape {template.shape} and a dtype "
            f"like {template.dtype}, got {value.shape} and {value.dtype}"
        )
        return value
    is_key = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    return value if is_key else jnp.asarray(value, template.dtype)


def _label(address):
    return ".".join(address)


def _leaves(
    state: Any, above: tuple[str, ...] = (), field: str = ""
) -> Iterator[_Leaf]:
    """Return the leaves of a state, in the order of `jax.tree.leaves`.

    A chain in a chain is part of it, and links have a number among those of their kind,
    so that it does not matter which links without arrays stand between them.
    """
    seen: Counter[str] = Counter()
    for link in _links(state):
        if hasattr(link, "_fields"):
            kind = "adamax" if _is_of_adamax(link) else type(link).__name__
            # Our count is a link of its own, behind the moments that it belongs to.
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


def _links(state):
    if type(state) is tuple:
        for link in state:
            yield from _links(link)
    else:
        yield state


def _children(node):
    """Return the children of a node, each with its name; of a leaf, itself."""
    found, _ = jax.tree_util.tree_flatten_with_path(
        node, is_leaf=lambda x: x is not node
    )
    # A variable of NNX is not told from the array in it.
    value = (jax.tree_util.GetAttrKey("value"),)
    return [
        ([] if path == value else [jax.tree_util.keystr(path, simple=True)], child)
        for path, child in found
    ]


def _is_of_adamax(link):
    return (
        is_moments(link)
        or _is_optax(link)
        or isinstance(link, ScaleByBiasCorrectionState)
    )


def _field(link, name):
    if _is_of_adamax(link):
        return name
    if name == "hyperparams":
        return "setting"
    return "schedule" if link._fields == ("count",) else ""


def _is_off(leaf):
    """Whether a leaf is a hyperparameter of 0, which need not have a place."""
    is_known = not isinstance(leaf.value, jax.core.Tracer)
    return leaf.field == "setting" and is_known and bool(jnp.all(leaf.value == 0))
