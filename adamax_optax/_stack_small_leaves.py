"""Step many small leaves as few arrays, around any elementwise transformation."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import jaxpr_as_fun

from adamax_optax._checks import check_fit, check_transformation, leaf_name, pairs
from adamax_optax._elementwise import mixing_operation
from adamax_optax._stacks import StackedLeaves, StackLayout, check_shapes, layout_of
from adamax_optax.moments import (
    ScaleByReducedInfinityNormState,
    check_state,
    is_moments,
    state_dtype_of,
)


def stack_small_leaves(
    tx: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Step small leaves of one shape and dtype as one array.

    With thousands of small leaves, a step on CPU spends its time passing arrays. This
    stacks leaves of up to 16,384 elements, up to 32 in an array, so the state has one
    array where it had 32. It pays on CPU; on GPU and TPU it copies more than it saves.

    Args:
      tx: A transformation that updates each element by itself, such as `adamax` or
        `optax.adam`. Put those that look at whole leaves or trees outside::

            optax.chain(optax.clip_by_global_norm(1.0), ao.stack_small_leaves(tx))
            optax.apply_if_finite(ao.stack_small_leaves(tx), 5)
            optax.masked(ao.stack_small_leaves(tx), mask)

        Python code that depends on a leaf's shape or name cannot be detected, and would
        see those of the stacks. `extra_args` are passed on unchanged.

    Returns:
      The transformation. Its state is that of `tx`, with `StackedLeaves` in place of
      trees like the parameters: `stacks`, arrays of shape (leaves, …), and `rest`,
      the tree of the other leaves. `unstack_state` gives it the structure of the
      parameters, for other settings, checkpoints and `adamax_optax.interop`.
      Updates are those of `tx`, except for noise: that of a reduced `state_dtype`, of
      `stochastic_rounding` or of `optax.add_noise` differs.
      In `update`, pass `params`, or gradients of the parameters' dtypes.
      Leaves of one shape must be sharded alike; a step then communicates nothing.

    Raises:
      ValueError: If `tx` is not a transformation; in `init`, if `tx` has masks, groups
        or `lazy_rows` inside, or if leaves of a stack are seen to be sharded
        differently; in `update`, if `tx` mixes elements, as norms do, or if a gradient
        is missing or does not fit.

    Example:
      >>> import adamax_optax as ao, jax, jax.numpy as jnp, optax
      >>> params = {f"bias{i}": jnp.zeros(4) for i in range(3)}
      >>> tx = ao.stack_small_leaves(ao.adamax(learning_rate=0.1))
      >>> state = tx.init(params)
      >>> print(optax.tree_utils.tree_get(state, "mu").stacks[0].shape)
      (3, 4)
      >>> gradients = jax.tree.map(jnp.ones_like, params)
      >>> updates, state = tx.update(gradients, state, params)
      >>> print(f"{updates['bias2'][0]:.3f}")
      -0.100
      >>> mirrored = ao.unstack_state(state, params)
      >>> print(optax.tree_utils.tree_get(mirrored, "mu")["bias2"].shape)
      (4,)
    """
    check_transformation("tx", tx)
    tx = optax.with_extra_args_support(tx)

    def init_fn(params):
        layout = StackLayout(params)
        if not layout.stacks:
            return tx.init(params)
        layout.check_places()
        try:
            state = tx.init(layout.pack(params))
        except ValueError as error:
            tx.init(params)  # if it fails without stacks too, with an error of its own
            raise ValueError(_MASK) from error
        if any(map(_is_masked, jax.tree.leaves(state, is_leaf=_is_masked))):
            raise ValueError(_MASK)
        return state

    def update_fn(updates, state, params=None, **extra_args):
        like = updates if params is None else params
        layout = StackLayout(like)
        if not layout.stacks:
            return tx.update(updates, state, params, **extra_args)
        _check_gradients(updates, like)
        trees = (
            layout.pack(updates, _stack_gradients),
            state,
            None if params is None else layout.pack(params),
        )
        update = functools.partial(tx.update, **extra_args)
        traced, outputs = jax.make_jaxpr(update, return_shape=True)(*trees)
        if name := mixing_operation(traced.jaxpr, _in_stacks(trees)):
            raise ValueError(
                f"tx does not update each element by itself: it has the operation "
                f"{name!r}. Norms, clipping by them and the like go outside: "
                "optax.chain(optax.clip_by_global_norm(1.0), "
                "ao.stack_small_leaves(tx))."
            )
        leaves = jaxpr_as_fun(traced)(*jax.tree.leaves(trees))
        updates, state = jax.tree.unflatten(jax.tree.structure(outputs), leaves)
        return layout.unpack(updates), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def unstack_state(opt_state: optax.OptState, params: optax.Params) -> optax.OptState:
    """Give a state of `stack_small_leaves` the structure of the parameters.

    Args:
      opt_state: The state, in any chains and wrappers.
      params: The parameters, or their shapes as `jax.ShapeDtypeStruct`.

    Returns:
      The state that the same optimizer has without `stack_small_leaves`.

    Raises:
      ValueError: If the state does not fit the parameters.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> params = [jnp.zeros(4), jnp.zeros(4)]
      >>> state = ao.stack_small_leaves(ao.adamax()).init(params)
      >>> print(len(ao.unstack_state(state, params)[2].mu))
      2
    """

    def unstack(node):
        if isinstance(node, StackedLeaves):
            return layout_of(node, params)[0].unpack(node)
        if not _is_stacked(node):
            return node
        # Each leaf gets the scale and the bound of its stack.
        layout, _ = layout_of(node.codes[0], params)
        of_leaf = layout.unpack(_numbered(node.codes[0]), row=lambda x, i: x)
        return _take(node, jax.tree.leaves(of_leaf), tuple(map(unstack, node.codes)))

    return jax.tree.map(unstack, opt_state, is_leaf=_is_stacked)


def stack_state(
    tx: optax.GradientTransformation, opt_state: optax.OptState, params: optax.Params
) -> optax.OptState:
    """Undo `unstack_state`: turn an optimizer's state into that of stacked leaves.

    Args:
      tx: The optimizer that will continue: `stack_small_leaves`, in any chains and
        wrappers.
      opt_state: The state of the same optimizer without `stack_small_leaves`.
      params: The parameters, or their shapes as `jax.ShapeDtypeStruct`.

    Returns:
      The state for `tx`. Not under `jit` if the state is reduced.

    Raises:
      ValueError: If the state does not fit, has another `state_dtype`, or is reduced
        and leaves of a stack have different scales, as after an import or steps without
        some gradients.

    Example:
      >>> import adamax_optax as ao, jax.numpy as jnp
      >>> params = [jnp.zeros(4), jnp.zeros(4)]
      >>> state = ao.adamax().init(params)  # from a checkpoint, say
      >>> tx = ao.stack_small_leaves(ao.adamax())
      >>> print(ao.stack_state(tx, state, params)[2].mu.stacks[0].shape)
      (2, 4)
    """

    def stack(node, mirrored):
        if isinstance(node, StackedLeaves):
            packed = layout_of(node, params)[0].pack(mirrored)
            return check_shapes(packed, node, "opt_state does not fit params")
        if not _is_stacked(node):
            return mirrored
        layout, own = layout_of(node.codes[0], params)
        first = layout.pack(_numbered(own), join=lambda numbers: numbers[0])
        of_leaf = layout.unpack(_numbered(first), row=lambda x, i: x)
        first, of_leaf = jax.tree.leaves(first), jax.tree.leaves(of_leaf)
        codes = tuple(map(stack, node.codes, mirrored.codes))
        stacked = _take(mirrored, first, codes)
        for name in ("scale", "bound"):
            before, after = getattr(mirrored, name), getattr(stacked, name)
            if before is not None and np.any(before != after[np.array(of_leaf)]):
                raise ValueError(
                    f"opt_state has a {name} for each leaf, and they differ within a "
                    "stack. Convert the moments on the way: "
                    "interop.cast_state(opt_state, None), then stack_state with an "
                    "optimizer of state_dtype=None, then cast_state back."
                )
        return stacked

    check_transformation("tx", tx)
    like = jax.eval_shape(tx.init, params)
    for ours, theirs in zip(_moments_of(like), _moments_of(opt_state), strict=False):
        check_state(theirs, state_dtype_of(ours))
    return jax.tree.map(stack, like, opt_state, is_leaf=_is_stacked)


_MASK = (
    "tx has masks, groups or lazy_rows inside, which would see stacks instead of the "
    "parameters. Put masks outside: optax.masked(ao.stack_small_leaves(tx), mask). Put "
    "ao.stack_small_leaves around each transformation of optax.partition or "
    "ao.param_groups, except those with lazy_rows."
)


def _check_gradients(updates, params):
    """Raise `ValueError` unless each parameter has a gradient of its shape."""
    for path, gradient, param in pairs(
        updates, params, "The gradients do not have the structure of the parameters"
    ):
        name = f"The gradient at {leaf_name(path)}"
        if gradient is not None:
            check_fit(name, gradient, param, "parameter passed to update")
        elif jax.tree.leaves(param):
            raise ValueError(
                f"{name} is None, but the leaves of a stack step together. Pass zeros, "
                "or leave the parameter out: optax.masked(ao.stack_small_leaves(tx), "
                "mask)."
            )


def _stack_gradients(gradients):
    dtypes = {jnp.result_type(gradient) for gradient in gradients}
    if len(dtypes) > 1:
        raise ValueError(
            f"Gradients of one stack have the dtypes {sorted(map(str, dtypes))}; they "
            "must have one, as their parameters do."
        )
    return jnp.stack(gradients)


def _in_stacks(trees):
    """Return whether each leaf is a stack, in the order of the leaves."""

    def marks(node):
        if not isinstance(node, StackedLeaves):
            return False
        stacks = jax.tree.map(lambda _: True, node.stacks)
        return StackedLeaves(stacks, jax.tree.map(lambda _: False, node.rest))

    marked = jax.tree.map(marks, trees, is_leaf=lambda x: isinstance(x, StackedLeaves))
    return jax.tree.leaves(marked)


def _moments_of(opt_state):
    return list(filter(is_moments, jax.tree.leaves(opt_state, is_leaf=is_moments)))


def _is_masked(x):
    return isinstance(x, optax.MaskedState)


def _is_stacked(x):
    """Return whether a node of a state has stacks, and how it is unstacked is known."""
    if isinstance(x, ScaleByReducedInfinityNormState):
        return isinstance(x.codes[0], StackedLeaves)
    return isinstance(x, StackedLeaves)


def _numbered(tree):
    """Return a tree with its leaves replaced by their numbers."""
    treedef: Any
    leaves, treedef = jax.tree.flatten(tree)
    return treedef.unflatten(range(len(leaves)))


def _take(moments, numbers, codes):
    """Return reduced moments with other codes, and scales and bounds by `numbers`."""
    at = np.array(numbers)
    bound = None if moments.bound is None else moments.bound[at]
    return moments._replace(codes=codes, scale=moments.scale[at], bound=bound)
