"""Parameter groups: hyperparameters chosen by parameter name."""

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
    """Set hyperparameters by parameter name.

    A parameter's name is its path in the tree, joined by "/", such as
    ``encoder/layer_0/bias``. The parts are keys of dicts, indices of lists, attributes
    of Equinox modules or dataclasses, or the names in an `nnx.State`. A parameter
    belongs to the first rule whose pattern is found in its name.

    Unlike `mask`, which only switches the decay, groups can set every hyperparameter,
    `state_dtype` included. Scaling the gradients would not scale the learning rate:
    Adamax divides the scale away.

    Args:
      rules: Maps each pattern to a dict of arguments of `optimizer`, or to any
        transformation; the order matters. ``{}`` means `defaults` unchanged;
        ``optax.set_to_zero()`` freezes, and needs no state. A dict may also have
        ``"learning_rate_scale"``, at least 0, which multiplies the learning rate, a
        number or a schedule. Patterns are regular expressions for `re.search`:
        ``"bias"`` matches anywhere in a name, ``"^head/"`` at its start, ``"/bias$"``
        at its end, and ``"(?i)norm"`` in any case, as in ``LayerNorm_0``.
      optimizer: `adamax`, `adamaxw`, or any other function from hyperparameters to a
        transformation, such as ``optax.inject_hyperparams(ao.adamax)``.
      defaults: Arguments of `optimizer` for rules that do not set them.

    All numbers may be traced. docs/recipes.md shows how to change the learning rate
    during training.

    Returns:
      `optax.partition` of the groups. Its state is an `optax.PartitionState`, whose
      `inner_states` is a dict with the patterns as keys. Each group has its own step
      count; in its trees, parameters of other groups are `optax.MaskedNode`.

    Raises:
      ValueError: If a pattern is not a regular expression, or if `optimizer` does not
        accept a hyperparameter, naming the rule; in `init`, if a parameter matches no
        rule or a rule is not the first match of any parameter, naming them.

    Example:
      No decay for biases and norms, a tenth of the learning rate for the embedding:

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
      ValueError: The rules ['nrom'] apply to no parameter: each parameter takes ...
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
        # Optax calls `init` with an empty tree to find the structure of a state.
        if unused and present:
            raise ValueError(
                f"The rules {unused} apply to no parameter: each parameter takes the "
                "first rule that matches its name. The parameters are "
                f"{[name for name, _ in present]}."
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
    """Return the transformation that a rule describes."""
    if hasattr(rule, "init") and hasattr(rule, "update"):
        return rule
    if not isinstance(rule, Mapping):
        raise ValueError(
            f"The rule {pattern!r} must map to a dict of hyperparameters or a "
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
            f"{list(signature.parameters)}; a rule may also have learning_rate_scale."
        ) from error
    bound.apply_defaults()
    try:
        if scale is not None:
            known = {**bound.arguments, **bound.kwargs}
            arguments["learning_rate"] = _scaled(known, scale)
        return optimizer(**arguments)
    except ValueError as error:
        raise ValueError(f"The rule {pattern!r}: {error}") from error


def _scaled(arguments, scale):
    """Return the learning rate among the arguments, multiplied by `scale`."""
    if "learning_rate" not in arguments:
        raise ValueError("learning_rate_scale needs an optimizer with a learning_rate.")
    rate = arguments["learning_rate"]
    check_range("learning_rate_scale", scale)
    check_learning_rate(rate)
    return (lambda count: scale * rate(count)) if callable(rate) else scale * rate


def _flatten(tree):
    """Return (name, leaf) pairs and the tree's structure; `None` is a leaf.

    An NNX variable is one too: `nnx.Optimizer` passes variables to `init` and arrays
    to `update`.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(
        tree, is_leaf=lambda x: x is None or _nnx.is_variable(x)
    )
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in leaves
    ], treedef


def _rule_of(name, leaf, patterns):
    """Return the first pattern that matches a name."""
    for pattern, compiled in patterns.items():
        if compiled.search(name):
            return pattern
    if leaf is None:  # nothing to optimize: any group will do
        return next(iter(patterns))
    raise ValueError(
        f"The parameter {name!r} matches none of the rules {list(patterns)}. Add "
        "'.*': {} at the end, for all the others."
    )
