"""Fine-tuning of a small encoder, in PyTorch: after BERT and MT-DNN.

    python examples/ports/bert_torch.py
    python examples/ports/bert_torch.py --betas 0.8 0.99 --weight-decay 0.1

Groups by name: no decay for biases and norms. Options for the betas; linear warm-up and
decay; gradients accumulated over two batches.
"""

import argparse
import math

import torch
import torch.nn.functional as F
from shared import VOCABULARY, initial, sentences
from torch import nn

BATCHES = 24
NO_DECAY = ["bias", "LayerNorm"]


class Bert(nn.Module):
    def __init__(self):
        super().__init__()
        self.word_embeddings = nn.Embedding(VOCABULARY, 16)
        self.position_embeddings = nn.Embedding(6, 16)
        self.query = nn.Linear(16, 16)
        self.key = nn.Linear(16, 16)
        self.value = nn.Linear(16, 16)
        self.dense = nn.Linear(16, 16)
        self.LayerNorm1 = nn.LayerNorm(16, eps=1e-5)
        self.intermediate = nn.Linear(16, 32)
        self.output = nn.Linear(32, 16)
        self.LayerNorm2 = nn.LayerNorm(16, eps=1e-5)
        self.pooler = nn.Linear(16, 16)
        self.classifier = nn.Linear(16, 2)

    def forward(self, tokens):
        places = torch.arange(tokens.shape[1])
        x = self.word_embeddings(tokens) + self.position_embeddings(places)
        scores = self.query(x) @ self.key(x).mT / math.sqrt(16)
        context = F.softmax(scores, -1) @ self.value(x)
        x = self.LayerNorm1(x + self.dense(context))
        x = self.LayerNorm2(x + self.output(F.gelu(self.intermediate(x))))
        return self.classifier(torch.tanh(self.pooler(x[:, 0])))


def split(named):
    """Return the parameters with decay, and the others."""
    named = list(named)
    decay = [p for n, p in named if not any(nd in n for nd in NO_DECAY)]
    no_decay = [p for n, p in named if any(nd in n for nd in NO_DECAY)]
    return decay, no_decay


def train(argv=(), dtype="float32"):
    args = parse(argv)
    model = Bert()
    for name, p in model.named_parameters():
        p.data = torch.from_numpy(initial(name, p.shape, dtype))
    decay, no_decay = split(model.named_parameters())
    optimizer_parameters = [
        {"params": decay, "weight_decay": args.weight_decay},
        {"params": no_decay, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.Adamax(
        optimizer_parameters, lr=args.learning_rate, betas=args.betas, eps=args.eps
    )
    total = args.epochs * BATCHES // args.accumulation
    warmup = total // 10
    scheduler = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, warmup),
            torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total - warmup),
        ],
        milestones=[warmup],
    )

    losses = []
    for epoch in range(args.epochs):
        for i, (tokens, labels) in enumerate(sentences(epoch, BATCHES)):
            tokens, labels = torch.from_numpy(tokens), torch.from_numpy(labels)
            loss = F.cross_entropy(model(tokens), labels)
            (loss / args.accumulation).backward()
            losses.append(loss.item())
            if (i + 1) % args.accumulation == 0:
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
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
