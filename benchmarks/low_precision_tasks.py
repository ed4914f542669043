"""Four small tasks on real data, trained for many seeds and learning rates at once.

The digits are scikit-learn's and the text is this repository's LICENSE: nothing is
downloaded.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from low_precision_forms import Optimizer
from sklearn.datasets import load_digits

import adamax_optax as ao

CONTEXT = 32  # characters that the transformer sees
LICENSE = Path(__file__).parents[1] / "LICENSE"


class Conv(nn.Module):
    """A convolution as one matrix product over the patches.

    Many networks at once, each with kernels of its own, are a grouped convolution,
    which XLA runs three times slower on a CPU than this.
    """

    features: int
    size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        rows, columns = (n - self.size + 1 for n in x.shape[1:3])
        patches = [
            x[:, i : i + rows, j : j + columns]
            for i in range(self.size)
            for j in range(self.size)
        ]
        return nn.Dense(self.features)(jnp.concatenate(patches, -1))


def halves(x: jax.Array) -> jax.Array:
    """Gather squares of 2x2 pixels: (n, h, w, c) to (n, h/2, w/2, 4, c)."""
    n, h, w, c = x.shape
    x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h // 2, w // 2, 4, c)


def doubled(x: jax.Array) -> jax.Array:
    """Spread channels over squares of 2x2 pixels: the inverse of `halves`."""
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, 2 * h, 2 * w, c // 4)


class MLP(nn.Module):
    """64-64-64-10."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(len(x), -1)
        for _ in range(2):
            x = nn.relu(nn.Dense(64)(x))
        return nn.Dense(10)(x)


class LeNet5(nn.Module):
    """LeCun's LeNet-5 with ReLU and max pooling, as in `examples/lenet5.py`."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for features in (6, 16):
            x = halves(nn.relu(Conv(features, 5)(x))).max(3)
        x = x.reshape(len(x), -1)
        for features in (120, 84):
            x = nn.relu(nn.Dense(features)(x))
        return nn.Dense(10)(x)


class Autoencoder(nn.Module):
    """8x8 pixels to 8 numbers and back, by convolutions."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        around = ((0, 0), (1, 1), (1, 1), (0, 0))
        x = nn.relu(Conv(8, 3)(jnp.pad(x, around)))
        x = halves(x)
        x = nn.relu(nn.Dense(16)(x.reshape(*x.shape[:3], -1)))
        code = nn.Dense(8)(x.reshape(len(x), -1))
        x = nn.relu(nn.Dense(4 * 4 * 16)(code)).reshape(-1, 4, 4, 16)
        x = nn.relu(doubled(nn.Dense(4 * 8)(x)))
        return Conv(1, 3)(jnp.pad(x, around))


class Transformer(nn.Module):
    """Two layers, to predict the next character."""

    characters: int
    width: int = 32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        place = self.param("place", nn.initializers.normal(0.02), (CONTEXT, self.width))
        mask = nn.make_causal_mask(x)
        x = nn.Embed(self.characters, self.width)(x) + place
        for _ in range(2):
            x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x), mask=mask)
            hidden = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
            x = x + nn.Dense(self.width)(hidden)
        return nn.Dense(self.characters)(nn.LayerNorm()(x))


class Task(NamedTuple):
    """A network, its data and how long and fast to train it.

    Attributes:
      init: From a key to parameters.
      loss: From parameters and the indices of a batch to its mean loss.
      examples: How many indices there are.
      batch: Size of a batch.
      steps: How many to train.
      learning_rates: Of the networks below, the last one is too high: float32 ends
        worse than before it.
      schedule: From a learning rate and the number of steps to Optax's schedule.
      weight_decay: Decoupled, and multiplied by the learning rate.
      in_order: Whether step t gets index t, in place of a batch drawn at random.
      averaged: The last part of the losses, whose mean counts as the final loss.
    """

    init: Callable[[jax.Array], Any]
    loss: Callable[[Any, jax.Array], jax.Array]
    examples: int
    batch: int
    steps: int
    learning_rates: tuple[float, ...]
    schedule: Callable[[Any, int], Any] = lambda rate, steps: rate
    weight_decay: float = 0.0
    in_order: bool = False
    averaged: float = 0.1


def digits(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the 1797 digits as images of size x size pixels, and their labels."""
    pixels, labels = load_digits(return_X_y=True)
    images = pixels.reshape(-1, 8, 8, 1).astype(np.float32) / 16
    if size != 8:
        images = jax.image.resize(images, (len(images), size, size, 1), "bilinear")
    return np.asarray(images), labels.astype(np.int32)


def apply(module: nn.Module, params: Any, x: jax.Array) -> jax.Array:
    """Return the output of a network, whatever the dtype of its parameters."""
    output: Any = module.apply(jax.tree.map(lambda p: p.astype(jnp.float32), params), x)
    return output


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean over the batch."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def classifier(module: nn.Module, size: int, **settings: Any) -> Task:
    """A task of telling digits apart."""
    x, y = map(jnp.asarray, digits(size))

    def loss(params, indices):
        return cross_entropy(apply(module, params, x[indices]), y[indices])

    return Task(lambda k: module.init(k, x[:1]), loss, len(x), **settings)


def autoencoder(**settings: Any) -> Task:
    """A task of drawing digits after having squeezed them into 8 numbers."""
    module = Autoencoder()
    x = jnp.asarray(digits(8)[0])

    def loss(params, indices):
        return jnp.mean((apply(module, params, x[indices]) - x[indices]) ** 2)

    return Task(lambda k: module.init(k, x[:1]), loss, len(x), **settings)


def transformer(**settings: Any) -> Task:
    """A task of guessing the next character of the licence."""
    characters, codes = np.unique(list(LICENSE.read_text()), return_inverse=True)
    module = Transformer(len(characters))
    text = jnp.asarray(codes, jnp.int32)

    def loss(params, indices):
        window = text[indices[:, None] + jnp.arange(CONTEXT + 1)]
        return cross_entropy(apply(module, params, window[:, :-1]), window[:, 1:])

    start = text[None, :CONTEXT]
    examples = len(text) - CONTEXT
    return Task(lambda k: module.init(k, start), loss, examples, **settings)


TASKS: dict[str, Callable[..., Task]] = {
    "MLP": lambda: classifier(
        MLP(), 8, batch=64, steps=1200, learning_rates=(2e-3, 1e-2, 3e-1)
    ),
    "LeNet-5": lambda: classifier(
        LeNet5(), 32, batch=16, steps=300, learning_rates=(2e-3, 8e-3, 3e-2)
    ),
    "autoencoder": lambda: autoencoder(
        batch=32, steps=600, learning_rates=(2e-3, 1e-2, 1e-1)
    ),
    "transformer": lambda: transformer(
        batch=8, steps=400, learning_rates=(2e-3, 1e-2, 1e-1)
    ),
}


def first_parameters(task: Task, seeds: int) -> Any:
    """Return the first parameters of many networks, stacked: one for each seed."""
    init = jax.jit(task.init)
    trees = [init(jax.random.key(seed)) for seed in range(seeds)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def train(
    task: Task,
    params: Any,
    optimizer: Optimizer,
    settings: Mapping[str, Sequence[float]],
    steps: int,
    rounded: bool = False,
) -> np.ndarray:
    """Train one network for every setting and seed, all of them at once.

    Args:
      task: What to train.
      params: The first parameters, with a leading axis for the seeds. The batches
        depend on the seed alone.
      optimizer: From the learning rate, and whatever else `settings` names, to the
        transformation.
      settings: Of each hyperparameter the values, one for every setting.
      steps: How many.
      rounded: Whether to wrap it in `ao.stochastic_rounding`.

    Returns:
      The losses, of shape (settings, seeds, steps).
    """
    seeds = len(jax.tree.leaves(params)[0])
    rng = np.random.default_rng(0)
    shape = (seeds, steps, task.batch)
    batches = rng.integers(task.examples, size=shape)
    if task.in_order:
        batches = np.broadcast_to(np.arange(steps)[:, None], shape)

    def run(setting, seed, params, batches):
        rate = task.schedule(setting["learning_rate"], steps)
        tx = optimizer(**{**setting, "learning_rate": rate})
        if task.weight_decay:
            tx = optax.chain(tx, decay(rate, task.weight_decay))
        if rounded:
            tx = ao.stochastic_rounding(tx, seed)

        def step(carry, batch):
            params, state = carry
            loss, gradients = jax.value_and_grad(task.loss)(params, batch)
            updates, state = tx.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), loss

        return jax.lax.scan(step, (params, tx.init(params)), batches)[1]

    all_seeds = jax.vmap(run, (None, 0, 0, 0))
    everything = jax.jit(jax.vmap(all_seeds, (0, None, None, None)))
    # `optax.apply_updates` adds float32 updates to bfloat16 parameters.
    with jax.numpy_dtype_promotion("standard"):
        losses = everything(
            {name: jnp.asarray(x, jnp.float32) for name, x in settings.items()},
            jnp.arange(seeds, dtype=jnp.uint32),
            params,
            jnp.asarray(batches, jnp.int32),
        )
    return np.asarray(losses)


def decay(rate: Any, weight_decay: float) -> optax.GradientTransformation:
    """Subtract rate * weight_decay * p: decoupled decay behind any optimizer."""
    if callable(rate):
        return optax.add_decayed_weights(lambda count: -weight_decay * rate(count))
    return optax.add_decayed_weights(-weight_decay * rate)


def final(losses: np.ndarray, averaged: float) -> list[float]:
    """Average the last losses of each seed."""
    last = max(1, round(averaged * losses.shape[-1]))
    return [float(x) for x in losses[:, -last:].astype(np.float64).mean(-1)]
