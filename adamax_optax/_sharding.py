"""Placement of state on a mesh: like the parameters, or divided further (ZeRO-1)."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from adamax_optax._arrays import place_of
from adamax_optax._checks import leaf_name
from adamax_optax._stacks import StackedLeaves, layout_of


def state_shardings(
    tx: optax.GradientTransformation,
    params: optax.Params,
    axis: str | tuple[str, ...] | None = None,
) -> Any:
    """Return the sharding of each array of an optimizer's state.

    Moments get the sharding of their parameter; everything else, such as step counts,
    is replicated. With `axis`, the moments are also divided along that mesh axis. If
    the parameters are replicated along it, as along a data axis, this is ZeRO-1: each
    device keeps and updates its part of the state, and the new parameters are gathered.

    Args:
      tx: Any Optax transformation, from this package or not.
      params: A tree of arrays on one mesh, or of `jax.ShapeDtypeStruct` with shardings.
      axis: Name of the mesh axis, or of several, along which to divide the moments. An
        array is cut along its first dimension that divides evenly. If there is none,
        or if the parameter is already divided along `axis`, the moments keep the
        parameter's sharding.

    Returns:
      A tree of `NamedSharding` with the structure of ``tx.init(params)``. Pass it as
      `out_shardings` to `jax.jit` of `init` and of the training step (as in
      docs/many_devices.md), and restore checkpoints to it.

    Raises:
      ValueError: If the parameters are not all on one mesh, or if it has no such axis.

    Example:
      >>> import adamax_optax as ao, jax, jax.numpy as jnp, optax
      >>> from jax.sharding import NamedSharding, PartitionSpec as P
      >>> mesh = jax.make_mesh((jax.device_count(),), ("data",))
      >>> params = {"w": jnp.ones((64, 3)), "b": jnp.ones(1)}
      >>> params = jax.device_put(params, NamedSharding(mesh, P()))
      >>> tx = ao.adamax(1e-3)
      >>> shardings = ao.state_shardings(tx, params, axis="data")
      >>> state = jax.jit(tx.init, out_shardings=shardings)(params)
      >>> print(optax.tree_utils.tree_get(state, "mu")["w"].sharding.spec == P("data"))
      True

    References:
      Rajbhandari et al., `ZeRO: Memory Optimizations Toward Training Trillion Parameter
      Models <https://arxiv.org/abs/1910.02054>`_, 2020, section 5.
    """
    mesh = _mesh_of(params)
    axes = (axis,) if isinstance(axis, str) else axis or ()
    if unknown := set(axes) - set(mesh.axis_names):
        raise ValueError(
            f"axis={axis!r} names {sorted(unknown)}, but the mesh of the parameters "
            f"has the axes {mesh.axis_names}."
        )
    everywhere = NamedSharding(mesh, PartitionSpec())

    def like_params(tree):
        if isinstance(tree, StackedLeaves):
            layout, own = layout_of(tree, params)
            layout.check_places()
            places = layout.pack(jax.tree.map(divided, own), join=_stacked)
        else:
            places = jax.tree.map(divided, params)
        # A parameter may correspond to a whole tree: an empty one (optax.masked), or
        # its real and imaginary parts.
        return jax.tree.map(
            lambda p, entry: jax.tree.map(lambda x: of_moment(p, x), entry),
            places,
            tree,
        )

    def divided(p):
        sharding = _divided(p.sharding, p.shape, axes)
        return jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=sharding)

    def of_moment(p, x):
        one_per_row = *p.shape[:1], *(1 for _ in p.shape[1:])
        if x.shape in (p.shape, one_per_row):
            return moment_sharding(p.sharding, p.shape, x.shape)
        return everywhere

    return optax.tree_utils.tree_map_params(
        tx,
        like_params,
        jax.eval_shape(tx.init, params),
        transform_non_params=lambda _: everywhere,
        is_leaf=lambda _: True,  # whole trees, not their leaves
    )


def _mesh_of(params):
    """Return the mesh that all parameters share, or raise `ValueError`."""
    meshes = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        sharding = getattr(leaf, "sharding", None)
        if not isinstance(sharding, NamedSharding):
            raise ValueError(
                f"The parameter at {leaf_name(path)} must lie on a mesh, and outside "
                f"jit, but its sharding is {sharding}. Place the parameters first: "
                "jax.device_put(params, NamedSharding(mesh, PartitionSpec()))."
            )
        meshes.append(sharding.mesh)
        if sharding.mesh != meshes[0]:
            raise ValueError(
                f"The parameter at {leaf_name(path)} lies on {sharding.mesh}, the "
                f"first one on {meshes[0]}: all must be on one mesh."
            )
    if not meshes:
        raise ValueError(f"params must hold at least one array, got {params!r}.")
    return meshes[0]


def _stacked(params):
    """Return a stack of arrays that are sharded alike; the new axis is not divided."""
    p = params[0]
    sharding = _with_spec(p.sharding, (None, *p.sharding.spec))
    return jax.ShapeDtypeStruct((len(params), *p.shape), p.dtype, sharding=sharding)


def _divided(sharding, shape, axes):
    """Return `sharding`, divided along more axes if a dimension allows it."""
    # For each dimension, a tuple of the axes that divide it; a PartitionSpec may have a
    # name or `None` instead.
    spec = [(x,) if isinstance(x, str) else x or () for x in sharding.spec]
    spec += [()] * (len(shape) - len(spec))
    if not set(axes).isdisjoint(itertools.chain(*spec)):
        return sharding
    for i, size in enumerate(shape):
        divided = (*spec[i], *axes)
        if size % math.prod(sharding.mesh.shape[name] for name in divided) == 0:
            spec[i] = divided
            break
    while spec and not spec[-1]:  # as in the shardings of JAX's results
        spec.pop()
    return _with_spec(sharding, spec)


def _with_spec(sharding, spec):
    kind = sharding.memory_kind
    return NamedSharding(sharding.mesh, PartitionSpec(*spec), memory_kind=kind)


def moment_sharding(sharding: Any, param: tuple[int, ...], moment: Any) -> Any:
    """Return where an array of state is: like its parameter, or like its rows.

    `sharding` and `param`, a shape, are those of the parameter. `moment` is the shape
    of the array: the same, or one number for each row.
    """
    if moment == param or not isinstance(sharding, NamedSharding):
        return sharding
    rows = [axis for axis in sharding.spec[:1] if axis is not None]
    return _with_spec(sharding, rows)


def filled_like(param: Any, value: float, dtype: Any) -> jax.Array:
    """Return an array filled with `value`, with a parameter's shape and sharding.

    Outside `jit`, `jnp.full_like` does this. Inside, XLA chooses the sharding, and a
    constant does not follow p; ``where(c, p, value)`` does, with a c that is always
    false but opaque to XLA. (`jax.experimental.shard_alike` is meant for this, but as
    of jax 0.10 it gives all parameters of one shape the same sharding.)
    """
    if not isinstance(param, jax.core.Tracer):
        return jnp.full_like(param, value, dtype=dtype)
    never = lax.optimization_barrier(np.False_)
    param = lax.stop_gradient(param)
    if not jnp.issubdtype(dtype, jnp.complexfloating):
        param = jnp.real(param)
    return jnp.where(never, param.astype(dtype), np.asarray(value, dtype))


def zeros_like(x: Any, dtype: Any) -> jax.Array:
    """Return zeros with an array's shape and, on an explicit mesh, its sharding.

    In jax 0.12, `jnp.zeros_like` of a traced array has the sharding only inside
    `jax.set_mesh`.
    """
    return (jnp.equal(x, x).astype(jnp.uint32) * np.uint32(0)).astype(dtype)


def replicated_beside(
    params: Any, value: Any, dtype: Any, shape: tuple[int, ...] = ()
) -> jax.Array:
    """Return an array filled with `value`, replicated on the parameters' mesh.

    Otherwise it would move there at the first step, and the second step would be
    compiled again. Without a common mesh, JAX chooses the device.
    """
    leaves = jax.tree.leaves(params)
    if any(isinstance(x, jax.core.Tracer) for x in (value, *leaves)):
        return jnp.full(shape, value, dtype)
    return jnp.full(shape, value, dtype, device=place_beside(leaves))


def place_beside(arrays: Any) -> Any:
    """Return the sharding of an array replicated where all of `arrays` are.

    `None`, by which JAX chooses the device, if they have no mesh or device in common.
    """
    places = {
        NamedSharding(place.mesh, PartitionSpec())
        if isinstance(place, NamedSharding)
        else place
        for place in map(place_of, arrays)
    }
    return places.pop() if len(places) == 1 else None
