"""Leave rows without gradient alone, as TensorFlow's Adamax does for embeddings."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamax_optax._checks import check_transformation, checked_mask
from adamax_optax._sharding import filled_like
from adamax_optax._stacks import has_stacks
from adamax_optax.moments import map_moments


def lazy_rows(
    inner: optax.GradientTransformation,
    mask: Any | Callable[[optax.Params], Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Step only the rows of each parameter that have a gradient.

    A row is an entry of the leading axis, such as a word of an embedding. If its whole
    gradient is 0, its parameters and their state stay exactly as they are: nothing
    decays, and no old momentum moves them. Step counts and schedules count all steps.
    This is how ``tf_keras.optimizers.legacy.Adamax`` treats ``tf.IndexedSlices``. See
    docs/when_to_use.md for what it changes and costs.

    Args:
      inner: The optimizer: of this package, with any `state_dtype`, or another whose
        state has the shapes of the parameters, such as `optax.adam`.
      mask: The leaves whose rows are lazy, given like the `mask` of `adamax`, except
        that a function receives the gradients. For different optimizers use
        `param_groups`, with ``ao.lazy_rows(...)`` as a rule; in the class, the key
        `"lazy_rows"` of a group.

    Returns:
      The transformation. Its state is `inner`'s, except that with a reduced
      `state_dtype` each row has a scale of its own: 4 bytes a row, with `jnp.uint16` 8.
      (`interop.cast_state` returns one scale for all rows, which the next step spreads
      again.) A step communicates nothing if no row is divided among devices. Wrappers
      that collect gradients go outside: ``optax.MultiSteps(ao.lazy_rows(...), 4)``.

    Raises:
      ValueError: If `inner` is not a transformation or `mask` does not fit; in `init`,
        if `inner` is or contains `stack_small_leaves`; in `update`, if its state has
        other shapes than the parameters; and whatever `inner` raises.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp, optax
      >>> tx = ao.lazy_rows(ao.adamax(0.1))
      >>> p = jnp.ones((3, 2))
      >>> state = tx.init(p)
      >>> for rows in ([1.0, 0.0, 1.0], [0.0, 0.0, 1.0]):
      ...     g = jnp.array(rows)[:, None] * jnp.ones(2)
      ...     updates, state = tx.update(g, state, p)
      ...     p = optax.apply_updates(p, updates)
      >>> print([f"{x:.1f}" for x in p[:, 0]])
      ['0.9', '1.0', '0.8']
    """
    check_transformation("inner", inner)
    inner = optax.with_extra_args_support(inner)
    mask_fn = (lambda _: True) if mask is None else checked_mask(mask)

    def init_fn(params):
        state = inner.init(params)
        if has_stacks(state):
            raise ValueError(
                "lazy_rows cannot wrap ao.stack_small_leaves, whose rows are whole "
                "parameters. Give the embeddings to one and the other parameters to "
                "the other, with ao.param_groups."
            )
        return with_row_scales(state)

    def update_fn(updates, state, params=None, **extra_args):
        state = with_row_scales(state)
        outputs, after = inner.update(updates, state, params, **extra_args)
        stepping = jax.tree.map(
            lambda lazy, part: jax.tree.map(
                lambda g: _stepping_rows(g, lazy), part, is_leaf=lambda g: g is None
            ),
            mask_fn(updates),
            updates,
        )
        outputs = jax.tree.map(
            lambda step, x: None if x is None else _where(step, x, jnp.zeros_like(x)),
            stepping,
            outputs,
        )
        # For each array of the state, which rows change: all, if it has no rows.
        changing = optax.tree_utils.tree_map_params(
            init_fn,
            lambda tree: jax.tree.map(
                lambda step, part: jax.tree.map(lambda _: step, part), stepping, tree
            ),
            state,
            transform_non_params=lambda x: jax.tree.map(lambda _: True, x),
            is_leaf=lambda _: True,
        )
        return outputs, jax.tree.map(_where, changing, after, state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _stepping_rows(g, lazy):
    """Return which rows step, to broadcast against g; a boolean if all or none do."""
    if g is None or not lazy:
        return g is not None
    return _any_in_row(g != 0)


def _any_in_row(x):
    return jnp.any(x, axis=tuple(range(1, jnp.ndim(x))), keepdims=True)


def _where(condition, new, old):
    if isinstance(condition, bool):
        return new if condition else old
    chosen = jnp.where(condition, new, old)
    if chosen.shape != jnp.shape(new):
        raise ValueError(
            "inner must have state of the parameters' shapes, as adamax and optax.adam "
            f"have; its state has an array of shape {jnp.shape(new)} for the rows of "
            f"shape {jnp.shape(condition)}."
        )
    return chosen


def has_row_scales(moments: Any) -> bool:
    """Return whether moments have a scale for each row."""
    return isinstance(getattr(moments, "scale", None), tuple)


def with_row_scales(opt_state: optax.OptState) -> Any:
    """Return a state whose reduced moments have a scale and a bound for each row.

    A row that does not step keeps its codes, so its scale must stay as well.
    """

    def spread(moments):
        if not hasattr(moments, "codes") or has_row_scales(moments):
            return moments
        treedef: Any
        codes, treedef = jax.tree.flatten(moments.codes[0])
        rows = [filled_like(_any_in_row(code), 0, jnp.float32) for code in codes]

        def of_rows(per_leaf):
            return (treedef.unflatten([x + per_leaf[i] for i, x in enumerate(rows)]),)

        return moments._replace(
            scale=of_rows(moments.scale),
            bound=None if moments.bound is None else of_rows(moments.bound),
        )

    return map_moments(spread, opt_state)
