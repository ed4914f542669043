"""What mixes the elements of an array is found, whatever it is wrapped in."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamax_optax as ao


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x / jnp.sum(x),
        lambda x: jnp.cumsum(x, axis=1),
        lambda x: jnp.sort(x, axis=1),
        lambda x: x[:, ::-1],
        lambda x: x.T,
        lambda x: x @ x,
        lambda x: jnp.roll(x, 1, axis=1),
        lambda x: x[:, jnp.array([2, 1, 0])],
        lambda x: x.at[0].multiply(2.0),
        lambda x: x.at[0].max(2.0),
        lambda x: jax.lax.reduce_window(
            x, 0.0, jax.lax.add, (3,) + (1,) * (x.ndim - 1), (1,) * x.ndim, "SAME"
        ),
        lambda x: jax.lax.pad(x, 0.0, [(1, -1, 0)] + [(0, 0, 0)] * (x.ndim - 1)),
        lambda x: jax.lax.top_k(x, x.shape[-1])[0],
        lambda x: jax.lax.scan(lambda _, row: (None, 2 * row), None, x)[1],
        lambda x: jax.lax.fori_loop(0, 3, lambda _, x: 2 * x, x),
        lambda x: jax.lax.cond(True, lambda x: x, lambda x: x - x.mean(), x),
        jax.jit(lambda x: x - x.mean()),
        jax.checkpoint(lambda x: x - x.mean()),
        lambda x: jax.nn.relu(x - x.max()),
        jax.nn.softmax,
    ],
)
def test_every_way_of_mixing_is_found(mix):
    tx = ao.stack_small_leaves(optax.stateless(lambda g, p: jax.tree.map(mix, g)))
    gradients = [jnp.ones(3)] * 3
    with pytest.raises(ValueError, match="does not update each element by itself"):
        tx.update(gradients, tx.init(gradients))


@pytest.mark.parametrize(
    "step",
    [
        lambda x: jax.lax.cond(x is None, lambda x: x, lambda x: 2 * x, x),
        lambda x: jax.lax.cond(jnp.sum(jnp.ones(3)) > 2, jnp.sin, jnp.cos, x),
        lambda x: jax.nn.silu(jax.nn.relu(x)),
        jax.checkpoint(jnp.sin),
        lambda x: x + jnp.sum(jnp.arange(4)) + jnp.arange(3),
        lambda x: jnp.where(x > 0, x, 0) ** 2 + jax.lax.stop_gradient(x),
        lambda x: jnp.ones_like(x) * jnp.linalg.norm(jnp.ones(3)),
        lambda x: (lambda f: f(x, jnp.ones((2, 2))))(
            jax.jit(lambda x, y: (x * 2, y.sum()))
        )[0],
    ],
)
@pytest.mark.usefixtures("lenient_promotion")
def test_elementwise_functions_pass(step):
    plain = optax.stateless(lambda g, p: jax.tree.map(step, g))
    tx = ao.stack_small_leaves(plain)
    gradients = [jnp.array([1.0, -2.0, 3.0]), jnp.array([0.5, 0.0, -1.0])]
    updates, _ = tx.update(gradients, tx.init(gradients))
    expected, _ = plain.update(gradients, plain.init(gradients))
    np.testing.assert_array_equal(updates, expected)
