"""Train LeNet-5 on handwritten digits with Adamax, in about a minute on two CPU cores.

It is trained twice from the same start: with float32 optimizer state, 8 bytes for each
parameter, and with 2 bytes. The digits are the 1797 that come with scikit-learn:
nothing is downloaded.

    python examples/lenet5.py
    python examples/lenet5.py --lr 0.01 --epochs 5 --out digits.png
"""

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
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
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"

STATE_DTYPES = {"float32 state": None, "uint16 state": jnp.uint16}


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


class Run(NamedTuple):
    """The network after training, and how it got there.

    Attributes:
      state: Its parameters and optimizer state.
      history: All epochs.
      probabilities: Those of the ten classes for the test digits, shape (n, 10).
    """

    state: TrainState
    history: list[Epoch]
    probabilities: np.ndarray


def create_state(
    args: argparse.Namespace, key: jax.Array, steps: int, state_dtype: Any
) -> TrainState:
    """Initialise the network and its optimizer, for `steps` steps."""
    model = LeNet5()
    init = jax.jit(model.init)  # compiled whole: quicker than op by op
    params = init(key, jnp.zeros((1, 32, 32, 1)))["params"]
    rate = ao.schedules.cosine_annealing_lr(args.lr, T_max=steps)
    tx = ao.adamax(rate, weight_decay=args.weight_decay, state_dtype=state_dtype)
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
    args: argparse.Namespace, data: Data, console: Console, state_dtype: Any
) -> Run:
    """Train for `args.epochs` epochs."""
    init_key, shift_key = jax.random.split(jax.random.key(args.seed))
    steps = len(data.train_labels) // args.batch_size  # of an epoch
    state = create_state(args, init_key, args.epochs * steps, state_dtype)
    rng = np.random.default_rng(args.seed)
    history: list[Epoch] = []
    # Printed lines scroll above the bar. A pipe or a file gets the lines alone.
    disable = args.quiet or not console.is_terminal
    with Progress(console=console, transient=True, disable=disable) as bar:
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
    return Run(state, history, np.asarray(predict(state, data.test_images)))


def summary(args: argparse.Namespace, runs: Mapping[str, Run]) -> Table:
    """Sum the runs up in a table."""
    last = [run.history[-1] for run in runs.values()]
    states = [run.state for run in runs.values()]
    sizes = [sum(x.nbytes for x in jax.tree.leaves(s.opt_state)) for s in states]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(states[0].params))
    seconds = [sum(epoch.seconds for epoch in run.history) for run in runs.values()]
    table = Table("LeNet-5 with Adamax", *runs)
    table.add_row("parameters", *[f"{parameters:,}"] * len(runs))
    table.add_row("learning rate", *[f"{args.lr:g}, cosine to 0"] * len(runs))
    table.add_row("weight decay", *[f"{args.weight_decay:g}"] * len(runs))
    table.add_row(
        f"steps of {args.batch_size} images", *[f"{s.step:,}" for s in states]
    )
    table.add_row("bytes of state", *[f"{n:,}" for n in sizes], style="bold green")
    table.add_row("train loss", *[f"{x.train_loss:.4f}" for x in last])
    accuracies = [f"{x.train_accuracy:.4f}" for x in last]
    table.add_row("train accuracy (shifted images)", *accuracies)
    accuracies = [f"{x.test_accuracy:.4f}" for x in last]
    table.add_row("test accuracy", *accuracies, style="bold green")
    table.add_row("time", *[f"{x:.1f} s" for x in seconds])
    return table


def draw_curves(figure: SubFigure, runs: Mapping[str, Run]) -> None:
    """Draw the losses above the accuracies, one point per epoch."""
    figure.suptitle("LeNet-5 with Adamax", fontsize=14)
    loss, accuracy = axes = figure.subplots(2, sharex=True)
    styles = ({"c": BLUE}, {"c": ORANGE, "ls": "--"})
    for (name, run), style in zip(runs.items(), styles, strict=True):
        epochs = range(1, len(run.history) + 1)
        mark = {"marker": "o" if len(run.history) < 10 else ""}  # one point: no line
        losses = [epoch.train_loss for epoch in run.history]
        test = [epoch.test_accuracy for epoch in run.history]
        loss.semilogy(epochs, losses, label=name, **style, **mark)
        accuracy.plot(epochs, test, label=f"{name}: {test[-1]:.2%}", **style, **mark)
    accuracy.set_ylim(top=1.005)
    loss.legend(frameon=False, loc="upper right")
    accuracy.legend(frameon=False, loc="lower right")
    accuracy.set_xlabel("epoch")
    for ax, label in zip(axes, ("train loss", "test accuracy"), strict=True):
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
    title = f"2-byte state: {wrong.sum()} of {len(truth)} test digits wrong"
    figure.suptitle(title, fontsize=14)
    for ax, i in zip(figure.subplots(6, 8).flat, order, strict=False):
        colour = ORANGE if wrong[i] else GREY
        ax.imshow(data.test_images[i, :, :, 0], cmap="gray_r")
        text = f"{guesses[i]}, not {truth[i]}" if wrong[i] else f"{guesses[i]}"
        ax.set_title(text, fontsize=10, color=colour, pad=4)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(color=colour, linewidth=2 if wrong[i] else 0.5)


def save_picture(path: Path, runs: Mapping[str, Run], data: Data) -> None:
    """Draw the curves on the left and the hardest digits on the right."""
    # Figure, and not pyplot: no display is needed and no global state is left.
    figure = Figure(figsize=(13, 6.5), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, wspace=0.03)[0]
    draw_curves(left, runs)
    draw_digits(right, data, runs["uint16 state"].probabilities)
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
    add("--weight-decay", type=not_negative, default=1e-4, help="coupled L2")
    add("--seed", type=seed, default=0, help="of the split, weights and order")
    add("--out", type=picture, default="out/lenet5.png", help="picture to write")
    add("--quiet", action="store_true", help="print the last two lines only")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train twice, draw, and print the test accuracies as the last line."""
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
    runs = {}
    for name, state_dtype in STATE_DTYPES.items():
        console.print(name)
        runs[name] = train(args, data, console, state_dtype)
    save_picture(args.out, runs, data)

    console.print(summary(args, runs))
    print(f"picture: {args.out}")
    # Of the last epoch, not of the best: the test set has chosen nothing.
    first, second = (run.history[-1].test_accuracy for run in runs.values())
    print(f"test accuracy {first:.4f}, with 2 bytes of state {second:.4f}")


if __name__ == "__main__":
    main()
