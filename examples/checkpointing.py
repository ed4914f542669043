"""Train on handwritten digits with checkpoints: stop it at any moment and resume.

    python examples/checkpointing.py
    python examples/checkpointing.py --state-dtype uint16 --save-every 1

Orbax writes parameters and optimizer state in the background while training
continues. However the program ends, Ctrl-C or kill -9, the next start resumes from the
newest complete checkpoint, and the last step gives the same bits as an undisturbed run.
"""

import argparse
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from sklearn.datasets import load_digits

import adamax_optax as ao

TEST = 360  # digits at the end, by other writers, that are never trained on
BATCH = 32


class State(NamedTuple):
    """All that changes while the network learns."""

    params: Any
    opt_state: optax.OptState


def predict(params: Any, images: jax.typing.ArrayLike) -> jax.Array:
    """Return the logits of a network with one hidden layer."""
    hidden = jax.nn.relu(images @ params["w1"] + params["b1"])
    return hidden @ params["w2"] + params["b2"]


def init(tx: optax.GradientTransformation) -> State:
    """Return the state before the first step."""
    rng = np.random.default_rng(0)
    params = {
        "w1": jnp.asarray(rng.normal(size=(64, 64)) / 8, jnp.float32),
        "b1": jnp.zeros(64),
        "w2": jnp.asarray(rng.normal(size=(64, 10)) / 8, jnp.float32),
        "b2": jnp.zeros(10),
    }
    return State(params, tx.init(params))


def make_train_step(tx: optax.GradientTransformation) -> Callable[..., Any]:
    """Return the step: state, images, labels -> state, loss."""

    @functools.partial(jax.jit, donate_argnums=0)
    def train_step(state, images, labels):
        def loss_fn(params):
            return optax.softmax_cross_entropy_with_integer_labels(
                predict(params, images), labels
            ).mean()

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        return State(optax.apply_updates(state.params, updates), opt_state), loss

    return train_step


def train(args: argparse.Namespace, manager: ocp.CheckpointManager) -> State:
    """Train from the newest checkpoint, or from the start, to the last step."""
    images, labels = load_data()
    tx = ao.adamax(args.lr, state_dtype=args.state_dtype)
    train_step, state = make_train_step(tx), init(tx)
    first = manager.latest_step() or 0
    if first:
        # `state` says which shapes, dtypes and devices the arrays are to have.
        state = manager.restore(first, args=ocp.args.StandardRestore(state))
    print(f"resuming from step {first}" if first else "from the start", flush=True)
    for step in range(first + 1, args.steps + 1):
        # A batch depends on the step alone: there is no other state to be saved.
        chosen = np.random.default_rng(step).choice(len(labels) - TEST, BATCH)
        state, loss = train_step(state, images[chosen], labels[chosen])
        # Copies the arrays, which the next step may overwrite, and writes them later.
        # Between two multiples of `save_every` it does nothing.
        last = step == args.steps
        if manager.save(step, args=ocp.args.StandardSave(state), force=last):
            print(f"step {step:{len(str(args.steps))}}  loss {loss:.4f}", flush=True)
    return state


@functools.cache
def load_data() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's 1797 digits, float32 of shape (n, 64), and their labels."""
    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype(np.float32), labels


def build_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    forms = ("bfloat16", "float16", "uint16")
    add = parser.add_argument
    add("--lr", type=float, default=5e-3, help="learning rate")
    add("--steps", type=count, default=1000, help="steps of 32 images")
    add("--save-every", type=count, default=100, help="steps between checkpoints")
    add("--state-dtype", choices=forms, help="dtype of the state; float32 if None")
    add("--directory", type=Path, default="out/checkpoints", help="for checkpoints")
    return parser


def count(text: str) -> int:
    """Read an option that is a number of steps."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number


def main(argv: Sequence[str] | None = None) -> None:
    """Train, and print the test accuracy as the last line."""
    args = build_parser().parse_args(argv)
    options = ocp.CheckpointManagerOptions(
        save_interval_steps=args.save_every,
        preservation_policy=ocp.checkpoint_managers.LatestN(2),
        cleanup_tmp_directories=True,  # what a killed process left half written
    )
    with ocp.CheckpointManager(args.directory.resolve(), options=options) as manager:
        state = train(args, manager)
    images, labels = load_data()
    right = predict(state.params, images[-TEST:]).argmax(-1) == labels[-TEST:]
    print(f"test accuracy {right.mean():.4f}")


if __name__ == "__main__":
    main()
