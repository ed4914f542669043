"""Train a transformer in 6 bytes per parameter, and in 16, on this repository's pages.

One run holds everything in float32. The other holds parameters and gradients in
bfloat16 and Adamax's state in `uint16`; `ao.stochastic_rounding` keeps the updates that
bfloat16 parameters would round away. A few minutes on two CPU cores, nothing is
downloaded.

    python examples/char_lm.py
    python examples/char_lm.py --steps 300 --out curves.png
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import adamax_optax as ao

ROOT = Path(__file__).parents[1]
CONTEXT = 96  # characters that the transformer sees
BATCH = 16
RATE = 1e-2
STRETCH = 20  # steps in one point of a curve
BLUE, ORANGE = "#0072B2", "#D55E00"


class Transformer(nn.Module):
    """Reads characters, and gives logits for the next one after each."""

    characters: int
    width: int = 96
    layers: int = 3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        place = self.param("place", nn.initializers.normal(0.02), (CONTEXT, self.width))
        mask = nn.make_causal_mask(x)
        x = nn.Embed(self.characters, self.width)(x) + place
        for _ in range(self.layers):
            x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x), mask=mask)
            hidden = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
            x = x + nn.Dense(self.width)(hidden)
        return nn.Dense(self.characters)(nn.LayerNorm()(x))


class Text(NamedTuple):
    """Characters, and the text as their numbers; the last tenth is held out."""

    characters: np.ndarray
    train: jax.Array
    held_out: jax.Array


class Run(NamedTuple):
    """One way of holding a model, and its results.

    Attributes:
      params: After the last step.
      losses: Of the batch at every step.
      held_out: Loss on text that was not trained on.
      sizes: Bytes of the arrays, by what they hold.
      seconds: For all steps, with compilation.
    """

    params: Any
    losses: np.ndarray
    held_out: float
    sizes: dict[str, int]
    seconds: float


def read_pages() -> Text:
    """Return the licence, the README, the changelog and the guides as one text.

    Without tables: numbers teach nothing, and change with every measurement.
    """
    paths = [ROOT / "LICENSE", ROOT / "README.md", ROOT / "CHANGELOG.md"]
    paths += sorted((ROOT / "docs").glob("*.md"))
    lines = "\n".join(path.read_text() for path in paths).splitlines()
    text = "\n".join(line for line in lines if not line.startswith("|"))
    characters, codes = np.unique(list(text), return_inverse=True)
    first = len(codes) * 9 // 10
    train, held_out = jnp.split(jnp.asarray(codes, jnp.int32), [first])
    return Text(characters, train, held_out)


def loss_of(model: Transformer, params: Any, windows: jax.Array) -> jax.Array:
    """Return the mean cross-entropy of the next characters."""
    # A CPU has no bfloat16 arithmetic. Gradients still come in the parameters' dtype.
    wide = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    logits: Any = model.apply(wide, windows[:, :-1])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, windows[:, 1:])
    return losses.mean()


def windows_at(text: jax.Array, starts: Any) -> jax.Array:
    """Cut stretches of the text out, one character longer than the context."""
    return text[jnp.asarray(starts)[:, None] + jnp.arange(CONTEXT + 1)]


def nbytes(tree: Any) -> int:
    """Count the bytes of all arrays."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def train(
    model: Transformer, text: Text, steps: int, seed: int, *, in_few_bytes: bool
) -> Run:
    """Train one model; both see the same batches."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, RATE, steps // 10, steps)
    params = jax.jit(model.init)(jax.random.key(seed), text.train[None, :CONTEXT])
    if in_few_bytes:
        params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
        tx: Any = ao.adamaxw(schedule, state_dtype=jnp.uint16)
        tx = ao.stochastic_rounding(tx, seed)
    else:
        tx = ao.adamaxw(schedule)
    state = tx.init(params)

    @jax.jit
    def gradients_of(params, windows):
        return jax.value_and_grad(lambda p: loss_of(model, p, windows))(params)

    @jax.jit
    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    rng, losses, start = np.random.default_rng(seed), [], time.perf_counter()
    gradients = None
    for i in range(steps):
        starts = rng.integers(len(text.train) - CONTEXT, size=BATCH)
        loss, gradients = gradients_of(params, windows_at(text.train, starts))
        params, state = step(params, state, gradients)
        losses.append(loss)
        if (i + 1) % max(1, steps // 5) == 0:
            recent = np.mean(jax.device_get(losses[-STRETCH:]))
            print(f"  step {i + 1:5}  loss {recent:.3f}", flush=True)
    sizes = {"parameters": params, "gradients": gradients, "state": state}
    seconds = time.perf_counter() - start
    starts = np.arange(0, len(text.held_out) - CONTEXT, CONTEXT)
    held_out = jax.jit(lambda p, w: loss_of(model, p, w))(
        params, windows_at(text.held_out, starts)
    )
    return Run(
        params,
        np.asarray(jax.device_get(losses)),
        float(held_out),
        {name: nbytes(tree) for name, tree in sizes.items()},
        seconds,
    )


def continued(model: Transformer, run: Run, text: Text, seed: int, length: int) -> str:
    """Let a model continue the first held-out characters."""

    @jax.jit
    def write(params, window, key):
        params = jax.tree.map(lambda p: p.astype(jnp.float32), params)

        def one(window, key):
            logits: Any = model.apply(params, window[None])
            drawn = jax.random.categorical(key, logits[0, -1] / 0.7)
            return jnp.append(window[1:], drawn.astype(window.dtype)), drawn

        return jax.lax.scan(one, window, jax.random.split(key, length))[1]

    drawn = write(run.params, text.held_out[:CONTEXT], jax.random.key(seed))
    return "".join(text.characters[np.asarray(drawn)])


def summary(runs: dict[str, Run], parameters: int) -> str:
    """Return a line for each run."""
    lines = [f"{parameters:,} parameters, bytes of each:"]
    for name, run in runs.items():
        sizes = ", ".join(f"{k} {v / parameters:.2f}" for k, v in run.sizes.items())
        total = sum(run.sizes.values())
        lines.append(
            f"{name:13}  {sizes}, in all {total / parameters:.2f} = "
            f"{total / 1e6:.2f} MB; held-out loss {run.held_out:.3f}; "
            f"{run.seconds:.0f} s"
        )
    return "\n".join(lines)


def save_picture(path: Path, runs: dict[str, Run]) -> None:
    """Draw the losses on the left and the bytes on the right."""
    figure = Figure(figsize=(11.5, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    styles: list[dict[str, Any]] = [
        {"c": ORANGE, "linewidth": 5, "alpha": 0.4},
        {"c": BLUE, "linewidth": 1.6},
    ]
    for (name, run), style in zip(runs.items(), styles, strict=True):
        points = len(run.losses) // STRETCH
        curve = run.losses[: points * STRETCH].reshape(points, STRETCH).mean(1)
        label = f"{name}: held-out loss {run.held_out:.3f}"
        left.plot(np.arange(1, points + 1) * STRETCH, curve, label=label, **style)
    left.set(xlabel="step", ylabel="training loss, per character")
    left.legend(frameon=False)
    left.grid(alpha=0.25)
    bottom = np.zeros(len(runs))
    shades = {"parameters": "#444444", "gradients": "#888888", "state": "#CCCCCC"}
    for part, shade in shades.items():
        heights = np.array([run.sizes[part] / 1e6 for run in runs.values()])
        right.bar(list(runs), heights, 0.6, bottom, color=shade, label=part)
        bottom += heights
    for i, total in enumerate(bottom):
        right.text(i, total, f"{total:.2f} MB", ha="center", va="bottom")
    right.set(ylabel="MB held between steps", ylim=(0, 1.12 * bottom.max()))
    right.legend(frameon=False)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> None:
    """Train both, write a little, draw, and print the comparison last."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--steps", type=int, default=600, help="steps of each run, at least 20")
    add("--seed", type=int, default=0, help="seed of the weights and the batches")
    add("--out", type=Path, default=Path("out/char_lm.png"), help="picture to write")
    args = parser.parse_args(argv)
    if args.steps < STRETCH:
        parser.error(f"--steps must be at least {STRETCH}, got {args.steps}")
    args.out.parent.mkdir(parents=True, exist_ok=True)

    text = read_pages()
    model = Transformer(len(text.characters))
    runs = {}
    for name, in_few_bytes in (("float32", False), ("in few bytes", True)):
        print(name, flush=True)
        runs[name] = train(
            model, text, args.steps, args.seed, in_few_bytes=in_few_bytes
        )
    few = runs["in few bytes"]
    print("\nWritten by the model in few bytes:\n")
    print(continued(model, few, text, args.seed, length=300), end="\n\n")
    save_picture(args.out, runs)
    print(f"picture: {args.out}")
    print(summary(runs, sum(leaf.size for leaf in jax.tree.leaves(few.params))))


if __name__ == "__main__":
    main()
