"""The same in JAX: Flax NNX and `adamax_optax.Adamax`; compare with frames_torch.py.

    python examples/ports/frames_jax.py

Every part of the network has its own learning rate; `ReduceLROnPlateau` reduces all of
them when the validation loss stops falling.
"""

import jax.numpy as jnp
from flax import nnx
from shared import frames
from torch_like import initialized

import adamax_optax as ao

EPOCHS, BATCHES = 10, 6
LR, RECTIFY_LR = 2e-2, 1e-2
FILTER_LR_COE, CTX_LR_COE, FLOW_LR_COE, DEPTH_LR_COE = 1.0, 1.0, 0.5, 0.1
EPSILON = 1e-3


def conv(inputs, outputs, *, rngs):
    return nnx.Conv(inputs, outputs, (3, 3), padding="SAME", rngs=rngs)


class Interpolation(nnx.Module):
    def __init__(self, *, rngs):
        self.initScaleNets_filter = conv(2, 1, rngs=rngs)
        self.initScaleNets_filter1 = conv(2, 1, rngs=rngs)
        self.initScaleNets_filter2 = conv(2, 1, rngs=rngs)
        self.ctxNet = conv(2, 2, rngs=rngs)
        self.flownets = conv(2, 2, rngs=rngs)
        self.depthNet = conv(2, 2, rngs=rngs)
        self.rectifyNet = conv(4, 1, rngs=rngs)

    def __call__(self, X0, X1):  # images with the channel last
        X = jnp.concatenate((X0, X1), -1)
        weight = nnx.softmax(self.flownets(X) + self.depthNet(X), -1)
        blend = (weight * X).sum(-1, keepdims=True)
        filtered = (
            self.initScaleNets_filter(X) * X0
            + self.initScaleNets_filter1(X) * X1
            + self.initScaleNets_filter2(X) * blend
        )
        context = self.ctxNet(X)
        return blend + self.rectifyNet(jnp.concatenate((blend, filtered, context), -1))


def pixel_loss(model, X0, X1, y):
    return jnp.sqrt((model(X0, X1) - y) ** 2 + EPSILON**2).mean()


grad_fn = nnx.jit(nnx.value_and_grad(pixel_loss))
loss_fn = nnx.jit(pixel_loss)


def train(dtype="float32"):
    model = initialized(lambda: Interpolation(rngs=nnx.Rngs(0)), dtype)
    groups = [
        {"params": model.initScaleNets_filter, "lr": FILTER_LR_COE * LR},
        {"params": model.initScaleNets_filter1, "lr": FILTER_LR_COE * LR},
        {"params": model.initScaleNets_filter2, "lr": FILTER_LR_COE * LR},
        {"params": model.ctxNet, "lr": CTX_LR_COE * LR},
        {"params": model.flownets, "lr": FLOW_LR_COE * LR},
        {"params": model.depthNet, "lr": DEPTH_LR_COE * LR},
        {"params": model.rectifyNet, "lr": RECTIFY_LR},
    ]
    optimizer = ao.Adamax(
        groups, lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-4
    )
    scheduler = ao.lr_scheduler.ReduceLROnPlateau(
        optimizer, "min", factor=0.2, patience=0, threshold=0.02
    )
    for kk in optimizer.param_groups:
        if kk["lr"] > 0:
            ikk = kk
            break

    losses, val_losses = [], []
    for t in range(EPOCHS):
        for X0, X1, y in map(channels_last, frames(t, BATCHES, dtype)):
            total_loss, grads = grad_fn(model, X0, X1, y)
            losses.append(total_loss.item())
            optimizer.step(grads, model)

        val_loss = jnp.array(0.0)
        for X0, X1, y in map(channels_last, frames(EPOCHS, BATCHES, dtype)):
            val_loss = val_loss + loss_fn(model, X0, X1, y) / BATCHES
        val_losses.append(val_loss.item())
        print(f"epoch {t}  lr {ikk['lr']:.5f}  validation loss {val_loss.item():.4f}")
        scheduler.step(val_loss)
    return losses, val_losses, model, optimizer.param_groups


def channels_last(batch):
    return [array.transpose(0, 2, 3, 1) for array in batch]


if __name__ == "__main__":
    train()
