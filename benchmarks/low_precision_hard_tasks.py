"""Seven tasks that ask more of an optimizer's state than the networks on digits.

Rows that rarely get a gradient, gradients that jump, losses that go far down, warm-up
and decay. All data is made here or is scikit-learn's: nothing is downloaded.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from low_precision_tasks import Task, apply, cross_entropy, digits


def cosine(rate: Any, steps: int) -> Any:
    """Let the learning rate fall to 0 along a cosine."""
    return optax.cosine_decay_schedule(rate, steps)


def warm_up_and_cosine(rate: Any, steps: int) -> Any:
    """Rise for a tenth of the steps, then fall along a cosine."""
    curve = optax.warmup_cosine_decay_schedule(0.0, 1.0, steps // 10, steps)
    return lambda count: rate * curve(count)


def factorisation(rows: int = 1000, rank: int = 8, **settings: Any) -> Task:
    """A task of completing a matrix whose rows and columns follow Zipf's law.

    Row k comes up in proportion to 1/k, so that most rows have a gradient in few
    batches. The loss is that of the entries as they come up.
    """
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, rows + 1)
    pairs = rng.choice(rows, size=(100_000, 2), p=shares / shares.sum())
    left, right = rng.normal(size=(2, rows, rank)) / rank**0.25
    noise = 0.1 * rng.normal(size=len(pairs))
    values = (left[pairs[:, 0]] * right[pairs[:, 1]]).sum(1) + noise
    row, column, value = (
        jnp.asarray(pairs[:, 0]),
        jnp.asarray(pairs[:, 1]),
        jnp.asarray(values, jnp.float32),
    )

    def init(key: jax.Array) -> Any:
        keys = jax.random.split(key)
        return [0.1 * jax.random.normal(k, (rows, rank)) for k in keys]

    def loss(params: Any, indices: jax.Array) -> jax.Array:
        left, right = (p.astype(jnp.float32) for p in params)
        products = left[row[indices]] * right[column[indices]]
        return jnp.mean((products.sum(-1) - value[indices]) ** 2)

    chosen = {"steps": 3000, "learning_rates": (1e-2, 3e-2, 1e-1), **settings}
    return Task(init, loss, len(pairs), batch=64, **chosen)


class Recurrent(nn.Module):
    """A GRU that guesses the next word."""

    words: int
    width: int = 32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        read: Any = nn.RNN(nn.GRUCell(self.width))(nn.Embed(self.words, self.width)(x))
        return nn.Dense(self.words)(read)


def language(words: int = 300, length: int = 12, **settings: Any) -> Task:
    """A task of guessing the next of `words` words, which follow Zipf's law.

    Every word has a usual successor, which follows it in half of the cases.
    """
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, words + 1)
    drawn = rng.choice(words, size=20_000, p=shares / shares.sum())
    usual = rng.permutation(words)
    for i in np.flatnonzero(rng.random(len(drawn) - 1) < 0.5):
        drawn[i + 1] = usual[drawn[i]]
    text = jnp.asarray(drawn, jnp.int32)
    module = Recurrent(words)

    def loss(params, indices):
        window = text[indices[:, None] + jnp.arange(length + 1)]
        return cross_entropy(apply(module, params, window[:, :-1]), window[:, 1:])

    start = text[None, :length]
    return Task(
        lambda k: module.init(k, start), loss, len(text) - length, batch=8, **settings
    )


class Variational(nn.Module):
    """Pixels to the mean and log variance of 8 numbers, and a draw of them back."""

    @nn.compact
    def __call__(self, x: jax.Array, noise: jax.Array) -> tuple[jax.Array, ...]:
        hidden = nn.relu(nn.Dense(64)(x))
        mean, log_variance = jnp.split(nn.Dense(16)(hidden), 2, -1)
        code = mean + jnp.exp(log_variance / 2) * noise
        return nn.Dense(64)(nn.relu(nn.Dense(64)(code))), mean, log_variance


def variational(**settings: Any) -> Task:
    """A variational autoencoder of the digits; the loss is the negative ELBO."""
    images = jnp.asarray(digits(8)[0].reshape(-1, 64))
    module = Variational()

    def loss(params, indices):
        x = images[indices]
        # Another draw for every batch, and the same for every optimizer.
        noise = jax.random.normal(jax.random.key(indices.sum()), (len(x), 8))
        params = jax.tree.map(lambda p: p.astype(jnp.float32), params)
        outputs: Any = module.apply(params, x, noise)
        logits, mean, log_variance = outputs
        missed = optax.sigmoid_binary_cross_entropy(logits, x).sum(-1)
        divergence = mean**2 + jnp.exp(log_variance) - log_variance - 1
        return jnp.mean(missed + divergence.sum(-1) / 2)

    def init(key):
        return module.init(key, images[:1], jnp.zeros((1, 8)))

    return Task(init, loss, len(images), batch=32, **settings)


class Curve(nn.Module):
    """A smooth function of one number."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(2):
            x = jnp.tanh(nn.Dense(20)(x))
        return nn.Dense(1)(x)


def physics(points: int = 48, **settings: Any) -> Task:
    """Solve u'' = -sin x, u(0) = u(pi) = 0 by a network: physics-informed, full batch.

    The loss is the mean squared residual plus that of the boundary.
    """
    module = Curve()
    x = jnp.linspace(0, np.pi, points)

    def loss(params, indices):
        del indices  # all points, at every step
        params = jax.tree.map(lambda p: p.astype(jnp.float32), params)

        def u(x):
            scaled = jnp.reshape(2 * x / np.pi - 1, (1,))
            return module.apply(params, scaled)[0]

        residual = jax.vmap(jax.grad(jax.grad(u)))(x) + jnp.sin(x)
        return jnp.mean(residual**2) + u(x[0]) ** 2 + u(x[-1]) ** 2

    return Task(lambda k: module.init(k, x[:1]), loss, 1, batch=1, **settings)


def bandit(
    contexts: int = 64, arms: int = 10, jump: int = 500, **settings: Any
) -> Task:
    """A policy gradient on a bandit whose rewards are drawn again every `jump` steps.

    The loss is the expected regret; its gradient is estimated from one arm for each
    context.
    """
    rng = np.random.default_rng(0)
    rewards = jnp.asarray(rng.random((100, contexts, arms)), jnp.float32)

    def loss(params, indices):
        step = indices[0]
        expected = rewards[step // jump]
        logits = params.astype(jnp.float32)
        policy = jax.lax.stop_gradient(jax.nn.softmax(logits))
        gained = (policy * expected).sum(-1)
        keys = jax.random.split(jax.random.key(step))
        arm = jax.random.categorical(keys[0], jax.lax.stop_gradient(logits))[:, None]
        noise = jax.random.normal(keys[1], arm.shape)
        reward = jnp.take_along_axis(expected, arm, -1) + 0.1 * noise
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), arm, -1)
        surrogate = -((reward - gained[:, None]) * chosen).mean()
        regret = (expected.max(-1) - gained).mean()
        return regret + surrogate - jax.lax.stop_gradient(surrogate)

    def init(key):
        return 0.01 * jax.random.normal(key, (contexts, arms))

    return Task(init, loss, 1, batch=1, in_order=True, averaged=1.0, **settings)


def quadratic(size: int = 64, **settings: Any) -> Task:
    """A quadratic with curvatures from 1 to 100, randomly rotated; exact gradients."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(size, size)))[0]
    curvatures = np.geomspace(1, 100, size)
    matrix = jnp.asarray(rotation * curvatures @ rotation.T, jnp.float32)
    least = jnp.asarray(rng.normal(size=size), jnp.float32)

    def loss(params, indices):
        del indices
        x = params.astype(jnp.float32) - least
        return x @ (matrix @ x) / 2

    def init(key):
        return jax.random.normal(key, (size,))

    return Task(init, loss, 1, batch=1, **settings)


# Around the best rates of Adam and Adamax; betas are compared at the one in the middle.
HARD_TASKS: dict[str, Callable[[], Task]] = {
    "factorisation, constant rate": lambda: factorisation(
        rows=500, steps=2000, learning_rates=(3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
    ),
    "factorisation, cosine": lambda: factorisation(
        rows=500,
        steps=2000,
        learning_rates=(1e-2, 3e-2, 1e-1, 3e-1, 1.0),
        schedule=cosine,
    ),
    "GRU language model": lambda: language(
        steps=500,
        learning_rates=(3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
        schedule=warm_up_and_cosine,
        weight_decay=0.1,
    ),
    "VAE": lambda: variational(
        steps=1000, learning_rates=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    ),
    "physics-informed": lambda: physics(
        steps=4000, learning_rates=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1), schedule=cosine
    ),
    "jumping bandit": lambda: bandit(
        steps=3000, learning_rates=(1e-2, 3e-2, 1e-1, 3e-1, 1.0)
    ),
    "quadratic": lambda: quadratic(
        steps=10_000, learning_rates=(1e-2, 3e-2, 1e-1, 3e-1, 1.0), schedule=cosine
    ),
}
