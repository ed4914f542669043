"""The same in JAX: Flax NNX and `adamax_optax.Adamax`; compare with vae_torch.py.

    python examples/ports/vae_jax.py

Linear warm-up by assigning the learning rate, then cosine; steps with a large gradient
are skipped; a moving average of the weights; saved and resumed in the middle.
"""

import os
import pickle
import tempfile

import jax
import jax.numpy as jnp
from flax import nnx
from shared import digits
from torch_like import clip_grad_norm, initialized

import adamax_optax as ao

EPOCHS, WARMUP_EPOCHS, BATCHES = 6, 2, 16
LEARNING_RATE, LEARNING_RATE_MIN = 1e-2, 1e-4
GRAD_CLIP, SKIP_THRESHOLD = 8.0, 20.0
EMA_RATE = 0.98


class VAE(nnx.Module):
    def __init__(self, *, rngs):
        self.enc1 = nnx.Linear(64, 32, rngs=rngs)
        self.enc2 = nnx.Linear(32, 16, rngs=rngs)
        self.posterior2 = nnx.Linear(16, 8, rngs=rngs)
        self.dec2 = nnx.Linear(4, 16, rngs=rngs)
        self.prior1 = nnx.Linear(16, 16, rngs=rngs)
        self.posterior1 = nnx.Linear(48, 16, rngs=rngs)
        self.dec1 = nnx.Linear(24, 32, rngs=rngs)
        self.out = nnx.Linear(32, 64, rngs=rngs)

    def __call__(self, x, noise1, noise2):
        h1 = nnx.elu(self.enc1(x))
        h2 = nnx.elu(self.enc2(h1))
        mean2, log_std2 = jnp.split(self.posterior2(h2), 2, -1)
        z2 = mean2 + jnp.exp(log_std2) * noise2
        d2 = nnx.elu(self.dec2(z2))
        prior_mean1, prior_log_std1 = jnp.split(self.prior1(d2), 2, -1)
        mean1, log_std1 = jnp.split(
            self.posterior1(jnp.concatenate((h1, d2), -1)), 2, -1
        )
        z1 = mean1 + jnp.exp(log_std1) * noise1
        d1 = nnx.elu(self.dec1(jnp.concatenate((d2, z1), -1)))
        logits = self.out(d1)
        recon = (nnx.softplus(logits) - x * logits).sum(-1)
        kl2 = kl(mean2, log_std2, jnp.zeros_like(mean2), jnp.zeros_like(mean2))
        kl1 = kl(mean1, log_std1, prior_mean1, prior_log_std1)
        return jnp.mean(recon + kl1 + kl2)


def kl(mean, log_std, prior_mean, prior_log_std):
    ratio = 2 * (log_std - prior_log_std)
    distance = (mean - prior_mean) ** 2 * jnp.exp(-2 * prior_log_std)
    return 0.5 * (jnp.exp(ratio) + distance - 1 - ratio).sum(-1)


grad_fn = nnx.jit(nnx.value_and_grad(lambda model, *batch: model(*batch)))


def training_step(model, ema_model, optimizer, batch):
    loss, grads = grad_fn(model, *batch)
    grads, grad_norm = clip_grad_norm(grads, GRAD_CLIP)
    skipped = not grad_norm.item() < SKIP_THRESHOLD  # NaN too
    if not skipped:
        optimizer.step(grads)
        update_ema(model, ema_model)
    return loss.item(), skipped


def update_ema(model, ema_model):
    params, ema_params = nnx.state(model), nnx.state(ema_model)
    nnx.update(ema_model, averaged(ema_params, params))


@jax.jit
def averaged(ema_params, params):
    def average(ema_p, p):
        return EMA_RATE * ema_p + (1 - EMA_RATE) * p

    return jax.tree.map(average, ema_params, params)


def train(folder, epochs=EPOCHS, resume=False, dtype="float32"):
    model = initialized(lambda: VAE(rngs=nnx.Rngs(0)), dtype)
    ema_model = nnx.clone(model)
    optimizer = ao.Adamax(model, LEARNING_RATE, weight_decay=3e-4, eps=1e-3)
    scheduler = ao.lr_scheduler.CosineAnnealingLR(
        optimizer, float(EPOCHS - WARMUP_EPOCHS - 1), eta_min=LEARNING_RATE_MIN
    )
    checkpoint_file = os.path.join(folder, "vae.pickle")
    if resume:
        with open(checkpoint_file, "rb") as file:
            checkpoint = pickle.load(file)
        init_epoch = checkpoint["epoch"]
        nnx.update(model, checkpoint["model"])
        nnx.update(ema_model, checkpoint["ema_model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        scheduler.load_state_dict(checkpoint["scheduler"])
        global_step = checkpoint["global_step"]
    else:
        global_step, init_epoch = 0, 0

    stats = []
    for epoch in range(init_epoch, epochs):
        if epoch > WARMUP_EPOCHS:
            scheduler.step()
        for batch in digits(epoch, BATCHES, dtype):
            if global_step < WARMUP_EPOCHS * BATCHES:
                lr = LEARNING_RATE * float(global_step) / (WARMUP_EPOCHS * BATCHES)
                for param_group in optimizer.param_groups:
                    param_group["lr"] = lr
            stats.append(training_step(model, ema_model, optimizer, batch))
            global_step += 1
        loss = sum(loss for loss, skipped in stats[-BATCHES:]) / BATCHES
        lr = optimizer.state_dict()["param_groups"][0]["lr"]
        print(f"epoch {epoch}  lr {lr:.5f}  loss {loss:.4f}")
        checkpoint = {
            "epoch": epoch + 1,
            "model": nnx.state(model),
            "ema_model": nnx.state(ema_model),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "global_step": global_step,
        }
        with open(checkpoint_file, "wb") as file:
            pickle.dump(checkpoint, file)
    return stats, model, ema_model


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        train(folder, epochs=4)
        train(folder, resume=True)
