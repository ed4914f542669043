"""The noise: uniform, without memory, and the same however the array is cut."""

import jax
import jax.numpy as jnp
import numpy as np

from adamax_optax._noise import leaf_key, next_key, noise

SIZE = 1 << 16


def uniform(key, shape=(SIZE,)):
    """Return the noise as numbers in [0, 1)."""
    return np.asarray(noise(jnp.zeros(shape), key)).astype(np.float64) / 2**32


def keys(count):
    """Return the keys of the first steps of leaf 0."""
    key, found = jnp.uint32(0), []
    for _ in range(count):
        key = next_key(key)
        found.append(leaf_key(key, 0))
    return found


def test_mean_variance_and_every_bit():
    for key in keys(4):
        x = uniform(key)
        np.testing.assert_allclose(x.mean(), 0.5, atol=5 / np.sqrt(12 * SIZE))
        np.testing.assert_allclose(x.var(), 1 / 12, rtol=0.02)
        bits = (np.asarray(noise(jnp.zeros(SIZE), key))[:, None] >> np.arange(32)) & 1
        np.testing.assert_allclose(bits.mean(axis=0), 0.5, atol=2.5 / np.sqrt(SIZE))


def test_neighbours_steps_and_leaves_are_uncorrelated():
    steps = keys(3)
    x = uniform(steps[0])
    others = [
        np.roll(x, 1),
        np.roll(x, 2),
        uniform(steps[1]),
        uniform(steps[2]),
        uniform(leaf_key(next_key(jnp.uint32(0)), 1)),
    ]
    for other in others:
        assert abs(np.corrcoef(x, other)[0, 1]) < 5 / np.sqrt(SIZE)


def test_one_place_over_the_steps():
    x = np.array([uniform(key, (1,))[0] for key in keys(2000)])
    np.testing.assert_allclose(x.mean(), 0.5, atol=5 / np.sqrt(12 * 2000))
    assert abs(np.corrcoef(x[1:], x[:-1])[0, 1]) < 5 / np.sqrt(2000)


def test_place_counts_in_row_major_order():
    key = leaf_key(jnp.uint32(7), 3)
    flat = noise(jnp.zeros(60), key)
    np.testing.assert_array_equal(noise(jnp.zeros((3, 4, 5)), key).reshape(-1), flat)
    assert noise(jnp.zeros(()), key) == flat[0]
    assert noise(jnp.zeros((0, 3)), key).shape == (0, 3)


def test_same_on_every_sharding():
    devices = np.array(jax.devices())
    mesh = jax.sharding.Mesh(devices, ("x",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    shape, key = (8 * len(devices), 6), jnp.uint32(1)
    sharded = jax.jit(lambda key: noise(jnp.zeros(shape), key), out_shardings=rows)(key)
    np.testing.assert_array_equal(sharded, noise(jnp.zeros(shape), key))
