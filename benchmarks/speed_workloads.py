"""The parameter trees whose step is timed, as shapes."""

from collections.abc import Callable
from dataclasses import dataclass

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Workload:
    """A tree of parameters.

    Attributes:
      title: Its name in tables.
      shapes: The shape of each leaf, by name.
    """

    title: str
    shapes: Shapes

    @property
    def size(self) -> int:
        """The number of parameters."""
        return sum(map(_size, self.shapes.values()))


def array(size: int = 1 << 24) -> Workload:
    """One array."""
    return Workload(f"one array of {size:,}", {"w": (size,)})


def transformer(layers: int = 12, width: int = 768) -> Workload:
    """The layers of a GPT-2 or BERT of this size, without the embeddings."""
    shapes: Shapes = {}
    for i in range(layers):
        layer: Shapes = {
            **{f"{name}/kernel": (width, width) for name in ("q", "k", "v", "o")},
            **{f"{name}/bias": (width,) for name in ("q", "k", "v", "o")},
            "up/kernel": (width, 4 * width),
            "up/bias": (4 * width,),
            "down/kernel": (4 * width, width),
            "down/bias": (width,),
            **{f"norm{j}/{name}": (width,) for j in (1, 2) for name in ("a", "b")},
        }
        shapes |= {f"layer{i:02}/{name}": shape for name, shape in layer.items()}
    title = f"transformer, {layers} layers of width {width}"
    return Workload(title, shapes)


def small_leaves(blocks: int = 500) -> Workload:
    """A convolutional autoencoder of many thin blocks: four small leaves each."""
    shapes: Shapes = {}
    for i in range(blocks):
        width = (8, 16, 32)[i % 3]
        shapes |= {
            f"block{i:03}/conv/kernel": (3, 3, width, width),
            f"block{i:03}/conv/bias": (width,),
            f"block{i:03}/norm/scale": (width,),
            f"block{i:03}/norm/bias": (width,),
        }
    return Workload(f"{len(shapes)} small leaves", shapes)


def lenet5() -> Workload:
    """LeNet-5, as in `examples/lenet5.py`."""
    shapes: Shapes = {
        "conv1/kernel": (5, 5, 1, 6),
        "conv2/kernel": (5, 5, 6, 16),
        "dense1/kernel": (400, 120),
        "dense2/kernel": (120, 84),
        "dense3/kernel": (84, 10),
    }
    shapes |= {
        name.replace("kernel", "bias"): shape[-1:] for name, shape in shapes.items()
    }
    return Workload("LeNet-5", shapes)


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "array": array,
    "transformer": transformer,
    "leaves": small_leaves,
    "lenet5": lenet5,
}
SMALL: dict[str, Callable[[], Workload]] = {
    "array": lambda: array(1 << 16),
    "leaves": lambda: small_leaves(1),
}


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
