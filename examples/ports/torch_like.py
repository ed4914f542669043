"""What PyTorch has and JAX lacks, written once for all ports."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from shared import initial

from adamax_optax import interop

# Flax's last words of names, where PyTorch says "weight".
WEIGHTS = ("kernel", "scale", "embedding")


def named_parameters(model):
    """Return (name, variable) for each parameter, with names like ``"enc1.kernel"``."""
    flat = nnx.to_flat_state(nnx.variables(model, nnx.Param))
    return [(".".join(map(str, path)), variable) for path, variable in flat]


def torch_name(name):
    """Return PyTorch's name for a parameter of Flax."""
    *before, last = name.split(".")
    return ".".join([*before, "weight" if last in WEIGHTS else last])


def initialized(make, dtype):
    """Return the model with the initial weights of PyTorch's, in Flax's layout."""
    model = nnx.eval_shape(make)  # shapes only, for initial values are not needed
    state = nnx.state(model, nnx.Param)
    names, (leaves, treedef) = interop.leaf_names(state), jax.tree.flatten(state)
    values = []
    for name, leaf in zip(names, leaves, strict=True):
        shape = interop.kernels_from_flax(name, np.empty(leaf.shape)).shape
        value = initial(torch_name(name), shape, dtype)
        values.append(jnp.asarray(interop.kernels_to_flax(name, value)))
    nnx.update(model, jax.tree.unflatten(treedef, values))
    return model


@jax.jit
def clip_grad_norm(grads, max_norm):
    """Return the gradients, clipped as PyTorch does it, and their norm before."""
    total_norm = optax.tree.norm(grads)
    clip_coef = jnp.minimum(max_norm / (total_norm + 1e-6), 1.0)
    return jax.tree.map(lambda g: g * clip_coef, grads), total_norm
