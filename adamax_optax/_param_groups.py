"""Parameter groups: hyperparameters by the name of a parameter."""

import inspect
import re
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import optax

from adamax_optax import _nnx
from adamax_optax._adamax import adamax
from adamax_optax._checks import check_learning_rate, check_range


def param_groups(
    rules: Mapping[str, Mapping[str, Any] | optax.GradientTransformation],
    optimizer: Callable[..., optax.GradientTransformation] = adamax,
    **defaults: Any,
) -> optax.GradientTransformationExtraArgs:
    """Give parameters hyperparameters of their own, by their names.

    No decay for biases and norms, a tenth of the learning rate for the embedding::

        tx = ao.param_groups({
            "bias|norm": {"weight_decay": 0.0},
            "embedding": {"learning_rate_scale": 0.1},
            ".*": {},
        }, learning_rate=schedule, weight_decay=0.01)

    A parameter's name is its path in the tree, joined by "/":
    ``encoder/layer_0/bias``, whether these are keys of dicts, numbers of list entries,
    attributes of an Equinox module or of a dataclass, or the names in an `nnx.State`.
    A parameter belongs to the first rule whose pattern is found in its name.

    A `mask` says of one hyperparameter, the decay, where it applies; groups are for
    all of them, `state_dtype` included. A mask is a tree that must be built for every
    model, and one that was meant to name the biases and names nothing goes unnoticed;
    here a parameter without a rule and a rule without a parameter are errors. And a
    learning rate that is scaled by a mask in a chain must stand behind the moments:
    scaled gradients are what Adamax divides away.

    Args:
      rules: Patterns and what holds for the parameters that they name, in order: a
        dict of arguments of `optimizer`, or a transformation of any kind. ``{}`` is
        `defaults` as they are; ``optax.set_to_zero()`` freezes, without state. Besides
        the arguments a dict may have ``"learning_rate_scale"``, at least 0, by which
        the learning rate is multiplied, be it a number or a schedule. Patterns are
        regular expressions for `re.search`: ``"bias"`` is found anywhere in a name,
        ``"^head/"`` at its start, ``"/bias$"`` at its end, and ``"(?i)norm"`` in any
        case, ``LayerNorm_0`` included.
      optimizer: `adamax`, `adamaxw`, or any other function from hyperparameters to a
        transformation, such as ``optax.inject_hyperparams(ao.adamax)``.
      defaults: Arguments of `optimizer` that hold where a rule has none of its own.

    All numbers may be traced. For a learning rate that can be set while training,
    inject into a function that makes the groups::

        def make(learning_rate):
            return ao.param_groups(rules, learning_rate=learning_rate)

        tx = optax.inject_hyperparams(make)(learning_rate=1e-3)

    Returns:
      `optax.partition` of the groups, with its state, an `optax.PartitionState`; its
      `inner_states` are a dict with the patterns as keys. Each group has a step count
      of its own. In the trees of a group the other parameters are `optax.MaskedNode`.

    Raises:
      ValueError: If a pattern is no regular expression, or if `optimizer` does not
        take or refuses a hyperparameter, naming the rule; in `init`, if a parameter
        matches no rule or a rule is the first match of none, naming them.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp, optax
      >>> params = {
      ...     "embedding": jnp.ones(2),
      ...     "dense": {"kernel": jnp.ones(2), "bias": jnp.ones(2)},
      ...     "norm": {"scale": jnp.ones(2)},
      ... }
      >>> tx = ao.param_groups({
      ...     "bias|norm": {"weight_decay": 0.0},
      ...     "embedding": {"learning_rate_scale": 0.1},
      ...     ".*": {},
      ... }, ao.adamaxw, learning_rate=0.1, weight_decay=0.5)
      >>> updates, state = tx.update(params, tx.init(params), params)
      >>> print(f"{updates['embedding'][0]:.3f} {updates['norm']['scale'][0]:.3f} "
      ...       f"{updates['dense']['kernel'][0]:.3f}")
      -0.015 -0.100 -0.150
      >>> tx = ao.param_groups({"bias": {}, "nrom": {}, ".*": {}})
      >>> tx.init(params)  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ValueError: The rules ['nrom'] are the first match of no parameter. The ...
    """
    if not isinstance(rules, Mapping) or not rules:
        raise ValueError(
            "rules must be a dict of patterns and hyperparameters, such as "
            f"{{'bias|norm': {{'weight_decay': 0.0}}, '.*': {{}}}}, got {rules!r}."
        )
    groups: dict[Hashable, optax.GradientTransformation] = {
        pattern: _transformation(pattern, rule, optimizer, defaults)
        for pattern, rule in rules.items()
    }
    patterns = {pattern: _compiled(pattern) for pattern in rules}

    def labels(tree):
        named, treedef = _flatten(tree)
        return treedef.unflatten(_rule_of(name, leaf, patterns) for name, leaf in named)

    partition = optax.partition(groups, labels)

    def init_fn(params):
        named, _ = _flatten(params)
        present = [(name, leaf) for name, leaf in named if leaf is not None]
        used = {_rule_of(name, leaf, patterns) for name, leaf in present}
        unused = [pattern for pattern in patterns if pattern not in used]
        # An empty tree passes: with one Optax finds out the form of a state.
        if unused and present:
            raise ValueError(
                f"The rules {unused} are the first match of no parameter. The "
                f"parameters are {[name for name, _ in present]}."
            )
        return partition.init(params)

    return optax.GradientTransformationExtraArgs(init_fn, partition.update)


def _compiled(pattern):
    try:
        return re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(
            f"The rule {pattern!r} is not a regular expression: {error}."
        ) from error


def _transformation(pattern, rule, optimizer, defaults):
    """Return what a rule stands for."""
    if hasattr(rule, "init") and hasattr(rule, "update"):
        return rule
    if not isinstance(rule, Mapping):
        raise ValueError(
            f"The rule {pattern!r} must have a dict of hyperparameters or a "
            f"transformation such as optax.set_to_zero(), got {rule!r}."
        )
    arguments = {**defaults, **rule}
    scale = arguments.pop("learning_rate_scale", None)
    signature = inspect.signature(optimizer)
    try:
        bound = signature.bind(**arguments)
    except TypeError as error:
        raise ValueError(
            f"The rule {pattern!r}: {error}. The optimizer takes "
            f"{list(signature.parameters)}; besides there is learning_rate_scale."
        ) from error
    bound.apply_defaults()
    try:
        if scale is not None:
            bound.arguments["learning_rate"] = _scaled(bound, scale)
        return optimizer(*bound.args, **bound.kwargs)
    except ValueError as error:
        raise ValueError(f"The rule {pattern!r}: {error}") from error


def _scaled(bound, scale):
    """Return the learning rate among the arguments, multiplied."""
    if "learning_rate" not in bound.arguments:
        raise ValueError("learning_rate_scale needs an optimizer with a learning_rate.")
    rate = bound.arguments["learning_rate"]
    check_range("learning_rate_scale", scale)
    check_learning_rate(rate)
    return (lambda count: scale * rate(count)) if callable(rate) else scale * rate


def _flatten(tree):
    """Return the leaves, each after its name, and the tree's structure.

    `None` is a leaf, and a variable of NNX is one too: with `nnx.Optimizer` the
    parameters in `init` are variables, and those in `update` are arrays.
    """

    def is_leaf(x):
        return x is None or _nnx.is_variable(x)

    leaves, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in leaves
    ], treedef


def _rule_of(name, leaf, patterns):
    """Return the first pattern that is found in a name."""
    for pattern, compiled in patterns.items():
        if compiled.search(name):
            return pattern
    if leaf is None:  # nothing to optimize, in whatever group
        return next(iter(patterns))
    raise ValueError(
        f"The parameter {name!r} matches none of the rules {list(patterns)}. Add "
        "'.*': {} at the end, for all that are left."
    )
