"""Data and initial weights, in NumPy: the same for both files of a pair.

The random numbers that a loop draws are here too: PyTorch and JAX have different
generators.
"""

import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import DTypeLike
from sklearn.datasets import load_digits, make_moons

PAD = 20  # the last token of questions, which fills up short ones
VOCABULARY = 12  # tokens of sentences


def initial(name: str, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Return the initial value of PyTorch's parameter `name`."""
    if len(shape) == 1:  # of a norm, 1; a bias, 0
        return np.full(shape, "weight" in name, dtype)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    bound = np.sqrt(1 / np.prod(shape[1:]))
    return rng.uniform(-bound, bound, shape).astype(dtype)


def digits(
    epoch: int, batches: int, dtype: DTypeLike
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield batches of 32 images, (32, 64) in [0, 1], and noise for the latents.

    In every tenth batch, the images are far too bright.
    """
    images = load_digits(return_X_y=True)[0] / 16
    for batch in range(batches):
        rng = np.random.default_rng([epoch, batch])
        x = images[rng.choice(len(images), 32)]
        if (batches * epoch + batch) % 10 == 9:
            x = x * 6
        noise1, noise2 = rng.normal(size=(32, 8)), rng.normal(size=(32, 4))
        yield x.astype(dtype), noise1.astype(dtype), noise2.astype(dtype)


def questions(
    epoch: int, batches: int, dtype: DTypeLike
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield batches of 32 images (6 objects), questions and soft answers.

    The answer depends on the question's first token and on the image's first object.
    """
    for batch in range(batches):
        rng = np.random.default_rng([epoch, batch])
        v = rng.normal(size=(32, 6, 8))
        q = rng.integers(PAD, size=(32, 7))
        q[np.arange(7) >= rng.integers(3, 8, (32, 1))] = PAD
        a = np.eye(10)[(q[:, 0] + 5 * (v[:, 0, 0] > 0)) % 10] * rng.choice([0.6, 1.0])
        yield v.astype(dtype), q, a.astype(dtype)


def sentences(epoch: int, batches: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield batches of 8 sentences and labels: does token 1 come before token 2?"""
    for batch in range(batches):
        rng = np.random.default_rng([epoch, batch])
        tokens = rng.integers(3, VOCABULARY, (8, 6))
        places = np.argsort(rng.random((8, 6)))[:, :2]
        tokens[np.arange(8)[:, None], places] = [1, 2]
        yield tokens, (places[:, 0] < places[:, 1]).astype(np.int64)


def frames(
    epoch: int, batches: int, dtype: DTypeLike
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield batches of 8 triples: a blob moves, and `y` is half-way from X0 to X1.

    Images have the shape (8, 1, 12, 12), as PyTorch's convolutions take them.
    """
    grid = np.stack(np.meshgrid(np.arange(12), np.arange(12), indexing="ij"), -1)
    for batch in range(batches):
        rng = np.random.default_rng([epoch, batch])
        start, end = rng.uniform(2, 10, (2, 8, 1, 1, 1, 2))
        width = rng.uniform(1.5, 4, (8, 1, 1, 1))

        def at(place, width=width):
            return np.exp(-np.sum((grid - place) ** 2, -1) / width).astype(dtype)

        yield at(start), at(end), at((start + end) / 2)


def moons(epoch: int, batches: int, dtype: DTypeLike) -> Iterator[np.ndarray]:
    """Yield batches of 64 points, (64, 2), on two half circles."""
    for batch in range(batches):
        points, _ = make_moons(64, noise=0.05, random_state=batches * epoch + batch)
        yield points.astype(dtype)
