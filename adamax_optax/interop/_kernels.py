"""Convert kernels between the layouts of PyTorch or MindSpore and Flax or Keras."""

from collections.abc import Collection, Mapping

import numpy as np


def kernels_to_flax(
    name: str,
    array: np.ndarray,
    *,
    flattened: Mapping[str, tuple[int, ...]] | None = None,
    conv_transpose: Collection[str] = (),
) -> np.ndarray:
    """Convert a leaf from PyTorch's or MindSpore's layout to Flax's.

    Pass it as `convert` to `from_torch` or `from_mindspore`, and apply it to the
    parameters. Bind the options with `functools.partial`. Leaves named ``kernel``
    change::

        Linear, Dense    (out, in)           ->  (in, out)
        Conv             (out, in, *window)  ->  (*window, in, out)
        ConvTranspose    (in, out, *window)  ->  (*window, out, in)

    which is the same transposition for all three. The last is the layout of Keras and
    of Flax's ``ConvTranspose(..., transpose_kernel=True)``. Other leaves (bias, scale,
    embedding) have the same layout everywhere.

    Args:
      name: The leaf's name; see `leaf_names`.
      array: A parameter, or one of its moments.
      flattened: A mapping from the names of dense kernels whose inputs are a flattened
        image to PyTorch's shape of that image, ``(channels, *window)``. Flax flattens
        with the channels last, so the inputs are permuted. (Not needed if the Flax
        module transposes before it flattens.)
      conv_transpose: Names of kernels of Flax's `ConvTranspose` with its default
        ``transpose_kernel=False``: these are ``(*window, in, out)`` and mirrored.

    Returns:
      The array in Flax's layout.

    Raises:
      ValueError: If an image of `flattened` has another size than the inputs.

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
    """Convert a leaf from Flax's layout to that of PyTorch and MindSpore.

    The inverse of `kernels_to_flax`, to pass as `convert` to `to_torch` or
    `to_mindspore`.

    Args:
      name: As in `kernels_to_flax`.
      array: As in `kernels_to_flax`.
      flattened: As in `kernels_to_flax`, with PyTorch's shape here too.
      conv_transpose: As in `kernels_to_flax`.

    Returns:
      The array in their layout.

    Raises:
      ValueError: If an image of `flattened` has another size than the inputs.

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


def _is_kernel(name: str, array: np.ndarray) -> bool:
    return name.rpartition(".")[2] == "kernel" and array.ndim >= 2
