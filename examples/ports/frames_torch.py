"""Frame interpolation with seven groups, in PyTorch: after DAIN.

    python examples/ports/frames_torch.py

Every part of the network has its own learning rate; `ReduceLROnPlateau` reduces all of
them when the validation loss stops falling.
"""

import torch
import torch.nn.functional as F
from shared import frames, initial
from torch import nn

EPOCHS, BATCHES = 10, 6
LR, RECTIFY_LR = 2e-2, 1e-2
FILTER_LR_COE, CTX_LR_COE, FLOW_LR_COE, DEPTH_LR_COE = 1.0, 1.0, 0.5, 0.1
EPSILON = 1e-3


def conv(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding="same")


class Interpolation(nn.Module):
    def __init__(self):
        super().__init__()
        self.initScaleNets_filter = conv(2, 1)
        self.initScaleNets_filter1 = conv(2, 1)
        self.initScaleNets_filter2 = conv(2, 1)
        self.ctxNet = conv(2, 2)
        self.flownets = conv(2, 2)
        self.depthNet = conv(2, 2)
        self.rectifyNet = conv(4, 1)

    def forward(self, X0, X1):
        X = torch.cat((X0, X1), 1)
        weight = F.softmax(self.flownets(X) + self.depthNet(X), 1)
        blend = (weight * X).sum(1, keepdim=True)
        filtered = (
            self.initScaleNets_filter(X) * X0
            + self.initScaleNets_filter1(X) * X1
            + self.initScaleNets_filter2(X) * blend
        )
        context = self.ctxNet(X)
        return blend + self.rectifyNet(torch.cat((blend, filtered, context), 1))


def pixel_loss(model, X0, X1, y):
    return torch.sqrt((model(X0, X1) - y) ** 2 + EPSILON**2).mean()


def train(dtype="float32"):
    model = Interpolation()
    for name, p in model.named_parameters():
        p.data = torch.from_numpy(initial(name, p.shape, dtype))
    groups = [
        {"params": model.initScaleNets_filter.parameters(), "lr": FILTER_LR_COE * LR},
        {"params": model.initScaleNets_filter1.parameters(), "lr": FILTER_LR_COE * LR},
        {"params": model.initScaleNets_filter2.parameters(), "lr": FILTER_LR_COE * LR},
        {"params": model.ctxNet.parameters(), "lr": CTX_LR_COE * LR},
        {"params": model.flownets.parameters(), "lr": FLOW_LR_COE * LR},
        {"params": model.depthNet.parameters(), "lr": DEPTH_LR_COE * LR},
        {"params": model.rectifyNet.parameters(), "lr": RECTIFY_LR},
    ]
    optimizer = torch.optim.Adamax(
        groups, lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-4
    )
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "min", factor=0.2, patience=0, threshold=0.02
    )
    for kk in optimizer.param_groups:
        if kk["lr"] > 0:
            ikk = kk
            break

    losses, val_losses = [], []
    for t in range(EPOCHS):
        for X0, X1, y in map(tensors, frames(t, BATCHES, dtype)):
            total_loss = pixel_loss(model, X0, X1, y)
            losses.append(total_loss.item())
            optimizer.zero_grad()
            total_loss.backward()
            optimizer.step()

        with torch.no_grad():
            val_loss = torch.tensor(0.0)
            for X0, X1, y in map(tensors, frames(EPOCHS, BATCHES, dtype)):
                val_loss = val_loss + pixel_loss(model, X0, X1, y) / BATCHES
        val_losses.append(val_loss.item())
        print(f"epoch {t}  lr {ikk['lr']:.5f}  validation loss {val_loss.item():.4f}")
        scheduler.step(val_loss)
    return losses, val_losses, model, optimizer.param_groups


def tensors(batch):
    return [torch.from_numpy(array) for array in batch]


if __name__ == "__main__":
    train()
