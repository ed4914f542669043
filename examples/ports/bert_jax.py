"""The same in JAX: Flax NNX and `adamax_optax.Adamax`; compare with bert_torch.py.

    python examples/ports/bert_jax.py
    python examples/ports/bert_jax.py --betas 0.8 0.99 --weight-decay 0.1

Groups by name: no decay for biases and norms. Options for the betas; linear warm-up and
decay; gradients accumulated over two batches.
"""

import argparse
import math

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from shared import VOCABULARY, sentences
from torch_like import initialized, named_parameters

import adamax_optax as ao

BATCHES = 24
NO_DECAY = ["bias", "LayerNorm"]


class Bert(nnx.Module):
    def __init__(self, dtype, *, rngs):
        # Flax's norm differs from PyTorch's in two defaults, its GELU in one.
        norm = {"epsilon": 1e-5, "use_fast_variance": False, "rngs": rngs}
        self.word_embeddings = nnx.Embed(VOCABULARY, 16, dtype=dtype, rngs=rngs)
        self.position_embeddings = nnx.Embed(6, 16, dtype=dtype, rngs=rngs)
        self.query = nnx.Linear(16, 16, rngs=rngs)
        self.key = nnx.Linear(16, 16, rngs=rngs)
        self.value = nnx.Linear(16, 16, rngs=rngs)
        self.dense = nnx.Linear(16, 16, rngs=rngs)
        self.LayerNorm1 = nnx.LayerNorm(16, **norm)
        self.intermediate = nnx.Linear(16, 32, rngs=rngs)
        self.output = nnx.Linear(32, 16, rngs=rngs)
        self.LayerNorm2 = nnx.LayerNorm(16, **norm)
        self.pooler = nnx.Linear(16, 16, rngs=rngs)
        self.classifier = nnx.Linear(16, 2, rngs=rngs)

    def __call__(self, tokens):
        places = jnp.arange(tokens.shape[1])
        x = self.word_embeddings(tokens) + self.position_embeddings(places)
        scores = self.query(x) @ self.key(x).mT / math.sqrt(16)
        context = nnx.softmax(scores, -1) @ self.value(x)
        x = self.LayerNorm1(x + self.dense(context))
        hidden = nnx.gelu(self.intermediate(x), approximate=False)
        x = self.LayerNorm2(x + self.output(hidden))
        return self.classifier(jnp.tanh(self.pooler(x[:, 0])))


@nnx.jit
@nnx.value_and_grad
def grad_fn(model, tokens, labels):
    loss = optax.softmax_cross_entropy_with_integer_labels(model(tokens), labels)
    return loss.mean()


@jax.jit
def accumulated(total, grads, accumulation):
    grads = jax.tree.map(lambda g: g / accumulation, grads)
    return grads if total is None else jax.tree.map(jnp.add, total, grads)


def split(named):
    """Return the parameters or their gradients with decay, and the others."""
    named = list(named)
    decay = [p for n, p in named if not any(nd in n for nd in NO_DECAY)]
    no_decay = [p for n, p in named if any(nd in n for nd in NO_DECAY)]
    return decay, no_decay


def train(argv=(), dtype="float32"):
    args = parse(argv)
    model = initialized(lambda: Bert(dtype, rngs=nnx.Rngs(0)), dtype)
    decay, no_decay = split(named_parameters(model))
    optimizer_parameters = [
        {"params": decay, "weight_decay": args.weight_decay},
        {"params": no_decay, "weight_decay": 0.0},
    ]
    optimizer = ao.Adamax(
        optimizer_parameters, lr=args.learning_rate, betas=args.betas, eps=args.eps
    )
    total = args.epochs * BATCHES // args.accumulation
    warmup = total // 10
    scheduler = ao.lr_scheduler.SequentialLR(
        optimizer,
        [
            ao.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, warmup),
            ao.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total - warmup),
        ],
        milestones=[warmup],
    )

    losses = []
    grads = None
    for epoch in range(args.epochs):
        for i, (tokens, labels) in enumerate(sentences(epoch, BATCHES)):
            loss, more = grad_fn(model, tokens, labels)
            grads = accumulated(grads, more, args.accumulation)
            losses.append(loss.item())
            if (i + 1) % args.accumulation == 0:
                optimizer.step(grads, model)
                scheduler.step()
                grads = None
        lr, loss = scheduler.get_last_lr()[0], sum(losses[-BATCHES:]) / BATCHES
        print(f"epoch {epoch}  lr {lr:.5f}  loss {loss:.4f}")
    return losses, model


def parse(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--learning-rate", type=float, default=8e-3)
    parser.add_argument("--betas", type=float, nargs=2, default=[0.9, 0.98])
    parser.add_argument("--eps", type=float, default=1e-6)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--accumulation", type=int, default=2)
    return parser.parse_args(argv)


if __name__ == "__main__":
    train(None)
