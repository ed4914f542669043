"""Where new state lies: on the devices of the parameters, and cut up as they are."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec


def filled_like(param: Any, value: float, dtype: Any) -> jax.Array:
    """Return an array filled with `value`, with a parameter's shape and sharding.

    Outside `jit` that is what `jnp.full_like` does. Inside, the sharding is XLA's to
    choose, and for a constant it does not look at p. But it lets the sharding of
    ``where(c, p, value)`` follow p, so that is what it is given, with a c that is
    always false, through which it cannot see. (`jax.experimental.shard_alike`, made for
    this, gives one sharding to all parameters of one shape, as of jax 0.10.)
    """
    if not isinstance(param, jax.core.Tracer):
        return jnp.full_like(param, value, dtype=dtype)
    never = lax.optimization_barrier(np.False_)
    param = lax.stop_gradient(param)
    if not jnp.issubdtype(dtype, jnp.complexfloating):
        param = jnp.real(param)
    return jnp.where(never, param.astype(dtype), np.asarray(value, dtype))


def scalar_beside(params: Any, value: Any, dtype: Any) -> jax.Array:
    """Return a scalar, with a copy on every device of the mesh of the parameters.

    If they lie on no mesh, or not all on the same, it goes where JAX puts arrays by
    default, and from there where a computation needs it. Without this it would move
    at the first step, and the second one would be compiled anew.
    """
    leaves = jax.tree.leaves(params)
    if any(isinstance(x, jax.core.Tracer) for x in (value, *leaves)):
        return jnp.asarray(value, dtype)
    shardings = [getattr(leaf, "sharding", None) for leaf in leaves]
    meshes = {getattr(sharding, "mesh", None) for sharding in shardings}
    mesh = meshes.pop() if len(meshes) == 1 else None
    device = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    return jnp.full((), value, dtype, device=device)
