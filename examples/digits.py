"""Handwritten digits for the examples: scikit-learn's own, so nothing is downloaded."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

MARGIN = 2  # blank pixels around a digit: 28x28 in 32x32, as in LeCun's paper


class Data(NamedTuple):
    """Images are float32 of shape (n, 32, 32, 1), labels int32 of shape (n,)."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load_data(seed: int) -> Data:
    """Enlarge the 8x8 digits to 32x32 and hold out a fifth of each class."""
    pixels, labels = load_digits(return_X_y=True)
    small = pixels.reshape(-1, 8, 8, 1).astype(np.float32)
    large = jax.image.resize(small, (len(small), 28, 28, 1), "bilinear")
    train_x, test_x, train_y, test_y = train_test_split(
        np.pad(large, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0))),
        labels.astype(np.int32),
        test_size=0.2,
        stratify=labels,
        random_state=seed,
    )
    # The test set has no say in training, not even through the mean.
    mean, std = train_x.mean(), train_x.std()
    return Data((train_x - mean) / std, train_y, (test_x - mean) / std, test_y)


def batches(
    data: Data, size: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield one shuffled epoch.

    The last partial batch is dropped: all batches have one shape, so the train
    step is compiled once. Another epoch drops other images.
    """
    order = rng.permutation(len(data.train_labels))
    for start in range(0, len(order) - size + 1, size):
        chosen = order[start : start + size]
        yield data.train_images[chosen], data.train_labels[chosen]


def random_shift(key: jax.Array, images: jax.Array) -> jax.Array:
    """Move each image by up to MARGIN pixels, so that only blank ones wrap round."""
    shifts = jax.random.randint(key, (len(images), 2), -MARGIN, MARGIN + 1)
    return jax.vmap(partial(jnp.roll, axis=(0, 1)))(images, shifts)
