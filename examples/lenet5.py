"""Train LeNet-5 on handwritten digits with Adamax, in about a minute on two CPU cores.

The digits are the 1797 that come with scikit-learn: nothing is downloaded.

    python examples/lenet5.py
    python examples/lenet5.py --lr 0.01 --epochs 5 --out digits.png
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from digits import Data, batches, load_data, random_shift
from flax.training.train_state import TrainState
from matplotlib.figure import Figure, SubFigure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import adamax_optax as ao

# Told apart by the colour-blind too.
BLUE, GREEN, ORANGE, GREY = "#0072B2", "#009E73", "#D55E00", "#666666"


class LeNet5(nn.Module):
    """LeCun's LeNet-5 with the ReLU and the max pooling that are usual today."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for features in (6, 16):
            x = nn.relu(nn.Conv(features, (5, 5), padding="VALID")(x))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1)
        for features in (120, 84):
            x = nn.relu(nn.Dense(features)(x))
        return nn.Dense(10)(x)


class Epoch(NamedTuple):
    """What one epoch reports."""

    train_loss: float
    train_accuracy: float
    test_accuracy: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"train loss {self.train_loss:.4f}  "
            f"train accuracy {self.train_accuracy:.4f}  "
            f"test accuracy {self.test_accuracy:.4f}  {self.seconds:4.1f} s"
        )


def create_state(args: argparse.Namespace, key: jax.Array) -> TrainState:
    """Initialise the network and its optimizer."""
    model = LeNet5()
    init = jax.jit(model.init)  # compiled whole: quicker than op by op
    params = init(key, jnp.zeros((1, 32, 32, 1)))["params"]
    tx = ao.adamax(args.lr, weight_decay=args.weight_decay)
    return TrainState.create(apply_fn=model.apply, params=params, tx=tx)


@jax.jit
def train_step(
    state: TrainState, images: jax.Array, labels: jax.Array, key: jax.Array
) -> tuple[TrainState, tuple[jax.Array, jax.Array]]:
    """Take one step; return the new state and the batch's loss and accuracy."""
    images = random_shift(jax.random.fold_in(key, state.step), images)

    def loss_fn(params: optax.Params) -> tuple[jax.Array, jax.Array]:
        logits = state.apply_fn({"params": params}, images)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, (logits.argmax(-1) == labels).mean()

    metrics, grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    return state.apply_gradients(grads=grads), metrics


@jax.jit
def predict(state: TrainState, images: jax.Array) -> jax.Array:
    """Return the probabilities of the classes, of shape (n, 10)."""
    return nn.softmax(state.apply_fn({"params": state.params}, images))


def train(
    args: argparse.Namespace, data: Data, console: Console
) -> tuple[TrainState, list[Epoch]]:
    """Train for `args.epochs` epochs; return the last state and all the epochs."""
    init_key, shift_key = jax.random.split(jax.random.key(args.seed))
    state = create_state(args, init_key)
    rng = np.random.default_rng(args.seed)
    history: list[Epoch] = []
    # Printed lines scroll above the bar. A pipe or a file gets the lines alone.
    disable = args.quiet or not console.is_terminal
    with Progress(console=console, transient=True, disable=disable) as bar:
        steps = len(data.train_labels) // args.batch_size
        task = bar.add_task("training", total=args.epochs * steps)
        for epoch in range(1, args.epochs + 1):
            start, metrics = time.perf_counter(), []
            for images, labels in batches(data, args.batch_size, rng):
                state, step_metrics = train_step(state, images, labels, shift_key)
                metrics.append(step_metrics)  # not fetched here: no step waits
                bar.advance(task)
            loss, accuracy = np.mean(jax.device_get(metrics), axis=0)
            right = predict(state, data.test_images).argmax(-1) == data.test_labels
            seconds = time.perf_counter() - start
            history.append(Epoch(*map(float, (loss, accuracy, right.mean(), seconds))))
            console.print(f"epoch {epoch:{len(str(args.epochs))}}  {history[-1]}")
    return state, history


def summary(
    args: argparse.Namespace, state: TrainState, history: Sequence[Epoch]
) -> Table:
    """Sum the run up in a table."""
    last = history[-1]
    size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    table = Table("LeNet-5", "trained with Adamax")
    table.add_row("parameters", f"{size:,}")
    table.add_row("learning rate", f"{args.lr:g}")
    table.add_row("weight decay", f"{args.weight_decay:g}")
    table.add_row("steps", f"{int(state.step):,} of {args.batch_size} images")
    table.add_row("train loss", f"{last.train_loss:.4f}")
    table.add_row("train accuracy", f"{last.train_accuracy:.4f} (shifted images)")
    table.add_row("test accuracy", f"{last.test_accuracy:.4f}", style="bold green")
    table.add_row("time", f"{sum(epoch.seconds for epoch in history):.1f} s")
    return table


def draw_curves(figure: SubFigure, history: Sequence[Epoch]) -> None:
    """Draw the loss above the accuracies, one point per epoch."""
    epochs = range(1, len(history) + 1)
    style = {"marker": "o" if len(history) < 10 else ""}  # one point makes no line
    train = [epoch.train_accuracy for epoch in history]
    test = [epoch.test_accuracy for epoch in history]
    figure.suptitle(f"LeNet-5 with Adamax: {test[-1]:.2%} right", fontsize=14)
    loss, accuracy = axes = figure.subplots(2, sharex=True)
    loss.semilogy(epochs, [epoch.train_loss for epoch in history], c=BLUE, **style)
    accuracy.plot(epochs, test, c=GREEN, label="test", **style)
    accuracy.plot(epochs, train, c=BLUE, label="train (shifted images)", **style)
    # The first train accuracies lie so low that they would flatten all the rest.
    accuracy.set_ylim(min(*test, train[-1]) - 0.02, 1.005)
    accuracy.legend(frameon=False, loc="lower right")
    accuracy.set_xlabel("epoch")
    for ax, label in zip(axes, ("train loss", "accuracy"), strict=True):
        ax.set_ylabel(label)
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    accuracy.locator_params(axis="x", integer=True, min_n_ticks=1)
    figure.align_ylabels()


def draw_digits(figure: SubFigure, data: Data, probabilities: np.ndarray) -> None:
    """Draw the test digits that the network finds hardest, the wrong ones first."""
    guesses, truth = probabilities.argmax(-1), data.test_labels
    wrong = guesses != truth
    order = np.lexsort((probabilities[np.arange(len(truth)), truth], ~wrong))
    title = f"{wrong.sum()} of {len(truth)} test digits wrong, the hardest first"
    figure.suptitle(title, fontsize=14)
    for ax, i in zip(figure.subplots(6, 8).flat, order, strict=False):
        colour = ORANGE if wrong[i] else GREY
        ax.imshow(data.test_images[i, :, :, 0], cmap="gray_r")
        text = f"{guesses[i]}, not {truth[i]}" if wrong[i] else f"{guesses[i]}"
        ax.set_title(text, fontsize=10, color=colour, pad=4)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(color=colour, linewidth=2 if wrong[i] else 0.5)


def save_picture(
    path: Path, history: Sequence[Epoch], data: Data, probabilities: np.ndarray
) -> None:
    """Draw the curves on the left and the hardest digits on the right."""
    # Figure, and not pyplot: no display is needed and no global state is left.
    figure = Figure(figsize=(13, 6.5), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, wspace=0.03)[0]
    draw_curves(left, history)
    draw_digits(right, data, probabilities)
    figure.savefig(path, dpi=120, bbox_inches="tight", pad_inches=0.15)


def checked(
    kind: Callable[[str], Any], valid: Callable[[Any], bool], wanted: str
) -> Callable[[str], Any]:
    """Make an argparse type that refuses a bad value with a sentence."""

    def parse(text: str) -> Any:
        if not valid(value := kind(text)):
            raise argparse.ArgumentTypeError(f"must be {wanted}, got {text}")
        return value

    parse.__name__ = kind.__name__  # for argparse's "invalid float value: 'x'"
    return parse


def build_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    positive = checked(float, lambda x: 0 < x < math.inf, "above 0 and finite")
    not_negative = checked(float, lambda x: 0 <= x < math.inf, "0 or more and finite")
    count = checked(int, lambda n: n >= 1, "at least 1")
    seed = checked(int, lambda n: 0 <= n < 2**32, "from 0 to 2**32 - 1")
    kinds = (".png", ".pdf", ".svg")  # refused now, and not after the training
    picture = checked(Path, lambda p: p.suffix in kinds, "a .png, .pdf or .svg file")
    add = parser.add_argument
    add("--lr", type=positive, default=2e-3, help="learning rate")
    add("--epochs", type=count, default=40, help="passes over the training set")
    add("--batch-size", type=count, default=32, help="images in one step")
    add("--weight-decay", type=not_negative, default=1e-4, help="of coupled L2")
    add("--seed", type=seed, default=0, help="of the split, the network and the order")
    add("--out", type=picture, default="out/lenet5.png", help="picture to write")
    add("--quiet", action="store_true", help="print the last two lines only")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train, draw, and print the test accuracy as the last line."""
    parser = build_parser()
    args = parser.parse_args(argv)
    data = load_data(args.seed)
    if args.batch_size > len(data.train_labels):
        parser.error(
            f"argument --batch-size: must be at most {len(data.train_labels)}, "
            f"the size of the training set, got {args.batch_size}"
        )
    args.out.parent.mkdir(parents=True, exist_ok=True)

    console = Console(quiet=args.quiet, highlight=False)
    state, history = train(args, data, console)
    probabilities = np.asarray(predict(state, data.test_images))
    save_picture(args.out, history, data, probabilities)

    console.print(summary(args, state, history))
    print(f"picture: {args.out}")
    # Of the last epoch, not of the best: the test set has chosen nothing.
    print(f"test accuracy {history[-1].test_accuracy:.4f}")


if __name__ == "__main__":
    main()
