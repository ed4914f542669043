"""Kernels between the layout of PyTorch and MindSpore and that of Flax and Keras."""

from collections.abc import Collection, Mapping

import numpy as np


def kernels_to_flax(
    name: str,
    array: np.ndarray,
    *,
    flattened: Mapping[str, tuple[int, ...]] | None = None,
    conv_transpose: Collection[str] = (),
) -> np.ndarray:
    """Bring a leaf from PyTorch's or MindSpore's layout into that of Flax.

    For the `convert` of `from_torch` and `from_mindspore`, and for the parameters
    themselves. Leaves named ``kernel`` change::

        Linear, Dense    (out, in)           ->  (in, out)
        Conv             (out, in, *window)  ->  (*window, in, out)
        ConvTranspose    (in, out, *window)  ->  (*window, out, in)

    which for all three is one transposition. The last is the layout of Keras and of
    Flax's ``ConvTranspose(..., transpose_kernel=True)``. All else (bias, scale,
    embedding) is laid out alike everywhere. Bind the options with `functools.partial`.

    Args:
      name: The leaf's name; see `leaf_names`.
      array: A parameter, or a moment of it.
      flattened: For a dense kernel whose inputs are a flattened image, by name: the
        image's shape without the batch, ``(channels, *window)``, as in PyTorch. Flax
        flattens with the channels last, which permutes the inputs. (With a transpose
        before the flattening in the module it is not needed.)
      conv_transpose: The names of kernels of Flax's `ConvTranspose` with its default
        ``transpose_kernel=False``, which are ``(*window, in, out)`` and mirrored.

    Returns:
      The array in Flax's layout.

    Raises:
      ValueError: If an image of `flattened` does not have the size of the inputs.

    Example:
      >>> import adamax_optax as ao, numpy as np
      >>> ao.interop.kernels_to_flax("conv1.kernel", np.ones((16, 3, 5, 5))).shape
      (5, 5, 3, 16)
    """
    if not _is_kernel(name, array):
        return array
    window = tuple(range(2, array.ndim))
    if name in conv_transpose:
        return np.flip(array, window).transpose(*window, 0, 1)
    if flattened and name in flattened:
        images = array.reshape(len(array), *flattened[name])
        array = np.moveaxis(images, 1, -1).reshape(array.shape)
    return array.transpose(*window, 1, 0)


def kernels_from_flax(
    name: str,
    array: np.ndarray,
    *,
    flattened: Mapping[str, tuple[int, ...]] | None = None,
    conv_transpose: Collection[str] = (),
) -> np.ndarray:
    """Bring a leaf from Flax's layout into that of PyTorch and MindSpore.

    The inverse of `kernels_to_flax`, for the `convert` of `to_torch` and
    `to_mindspore`.

    Args:
      name: The leaf's name; see `leaf_names`.
      array: A parameter, or a moment of it.
      flattened: See `kernels_to_flax`; the shape is PyTorch's here too.
      conv_transpose: See `kernels_to_flax`.

    Returns:
      The array in the layout of PyTorch and MindSpore.

    Raises:
      ValueError: If an image of `flattened` does not have the size of the inputs.

    Example:
      >>> import adamax_optax as ao, numpy as np
      >>> ao.interop.kernels_from_flax("conv1.kernel", np.ones((5, 5, 3, 16))).shape
      (16, 3, 5, 5)
    """
    if not _is_kernel(name, array):
        return array
    window = tuple(range(array.ndim - 2))
    if name in conv_transpose:
        return np.flip(array, window).transpose(-2, -1, *window)
    array = array.transpose(-1, -2, *window)
    if flattened and name in flattened:
        channels, *image = flattened[name]
        images = array.reshape(len(array), *image, channels)
        array = np.moveaxis(images, -1, 1).reshape(array.shape)
    return array


def _is_kernel(name, array):
    return name.rpartition(".")[2] == "kernel" and array.ndim >= 2
