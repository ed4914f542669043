"""A normalizing flow on two half moons, in PyTorch: after RealNVP and Glow.

    python examples/ports/flow_torch.py

`LambdaLR` with a function, stepped at the beginning of every epoch, the first included;
network, optimizer and scheduler are pickled as they are, to resume from.
"""

import os
import tempfile

import torch
from shared import initial, moons
from torch import nn

EPOCHS, BATCHES, WARMUP = 10, 8, 5
LEARNING_RATE = 1e-2


class Coupling(nn.Module):
    """Scale and shift one coordinate by functions of the other."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(1, 16)
        self.fc2 = nn.Linear(16, 2)

    def forward(self, x1, x2):
        log_scale, shift = torch.chunk(self.fc2(torch.tanh(self.fc1(x1))), 2, -1)
        log_scale = torch.tanh(log_scale)
        return x2 * torch.exp(log_scale) + shift, log_scale.sum(-1)


class Flow(nn.Module):
    def __init__(self):
        super().__init__()
        self.couplings = nn.ModuleList(Coupling() for _ in range(4))

    def forward(self, x):
        """Return the mean negative log-likelihood."""
        x1, x2 = torch.chunk(x, 2, -1)
        log_det = 0
        for coupling in self.couplings:
            x2, more = coupling(x1, x2)
            x1, x2, log_det = x2, x1, log_det + more
        return (0.5 * (x1**2 + x2**2).sum(-1) - log_det).mean()


def lr_lambda(epoch):
    return min(1.0, (epoch + 1) / WARMUP) * 0.9**epoch


def train(folder, epochs=EPOCHS, resume=False, dtype="float32"):
    checkpoint_file = os.path.join(folder, "flow.pt")
    if resume:
        checkpoint = torch.load(checkpoint_file, weights_only=False)
        init_epoch, model, optimizer, scheduler = checkpoint
    else:
        init_epoch, model = 0, Flow()
        for name, p in model.named_parameters():
            p.data = torch.from_numpy(initial(name, p.shape, dtype))
        optimizer = torch.optim.Adamax(
            model.parameters(), lr=LEARNING_RATE, weight_decay=5e-5
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_lambda=lr_lambda)

    losses = []
    for epoch in range(init_epoch, epochs):
        scheduler.step()
        for x in moons(epoch, BATCHES, dtype):
            optimizer.zero_grad()
            loss = model(torch.from_numpy(x))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        lr, loss = scheduler.get_last_lr()[0], sum(losses[-BATCHES:]) / BATCHES
        print(f"epoch {epoch}  lr {lr:.5f}  loss {loss:.4f}")
        torch.save((epoch + 1, model, optimizer, scheduler), checkpoint_file)
    return losses, dict(model.named_parameters())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        train(folder, epochs=5)
        train(folder, resume=True)
