"""A hierarchical VAE on digits, in PyTorch: after NVAE and "very deep VAE".

    python examples/ports/vae_torch.py

Linear warm-up by assigning the learning rate, then cosine; steps with a large gradient
are skipped; a moving average of the weights; saved and resumed in the middle.
"""

import copy
import os
import tempfile

import torch
import torch.nn.functional as F
from shared import digits, initial
from torch import nn

EPOCHS, WARMUP_EPOCHS, BATCHES = 6, 2, 16
LEARNING_RATE, LEARNING_RATE_MIN = 1e-2, 1e-4
GRAD_CLIP, SKIP_THRESHOLD = 8.0, 20.0
EMA_RATE = 0.98


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc1 = nn.Linear(64, 32)
        self.enc2 = nn.Linear(32, 16)
        self.posterior2 = nn.Linear(16, 8)
        self.dec2 = nn.Linear(4, 16)
        self.prior1 = nn.Linear(16, 16)
        self.posterior1 = nn.Linear(48, 16)
        self.dec1 = nn.Linear(24, 32)
        self.out = nn.Linear(32, 64)

    def forward(self, x, noise1, noise2):
        h1 = F.elu(self.enc1(x))
        h2 = F.elu(self.enc2(h1))
        mean2, log_std2 = torch.chunk(self.posterior2(h2), 2, -1)
        z2 = mean2 + torch.exp(log_std2) * noise2
        d2 = F.elu(self.dec2(z2))
        prior_mean1, prior_log_std1 = torch.chunk(self.prior1(d2), 2, -1)
        mean1, log_std1 = torch.chunk(self.posterior1(torch.cat((h1, d2), -1)), 2, -1)
        z1 = mean1 + torch.exp(log_std1) * noise1
        d1 = F.elu(self.dec1(torch.cat((d2, z1), -1)))
        logits = self.out(d1)
        recon = (F.softplus(logits) - x * logits).sum(-1)
        kl2 = kl(mean2, log_std2, torch.zeros_like(mean2), torch.zeros_like(mean2))
        kl1 = kl(mean1, log_std1, prior_mean1, prior_log_std1)
        return torch.mean(recon + kl1 + kl2)


def kl(mean, log_std, prior_mean, prior_log_std):
    ratio = 2 * (log_std - prior_log_std)
    distance = (mean - prior_mean) ** 2 * torch.exp(-2 * prior_log_std)
    return 0.5 * (torch.exp(ratio) + distance - 1 - ratio).sum(-1)


def training_step(model, ema_model, optimizer, batch):
    model.zero_grad()
    loss = model(*batch)
    loss.backward()
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP).item()
    skipped = not grad_norm < SKIP_THRESHOLD  # NaN too
    if not skipped:
        optimizer.step()
        update_ema(model, ema_model)
    return loss.item(), skipped


def update_ema(model, ema_model):
    for ema_p, p in zip(ema_model.parameters(), model.parameters(), strict=True):
        ema_p.data.mul_(EMA_RATE).add_(p.data * (1 - EMA_RATE))


def train(folder, epochs=EPOCHS, resume=False, dtype="float32"):
    model = VAE()
    for name, p in model.named_parameters():
        p.data = torch.from_numpy(initial(name, p.shape, dtype))
    ema_model = copy.deepcopy(model)
    optimizer = torch.optim.Adamax(
        model.parameters(), LEARNING_RATE, weight_decay=3e-4, eps=1e-3
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, float(EPOCHS - WARMUP_EPOCHS - 1), eta_min=LEARNING_RATE_MIN
    )
    checkpoint_file = os.path.join(folder, "vae.pt")
    if resume:
        checkpoint = torch.load(checkpoint_file)
        init_epoch = checkpoint["epoch"]
        model.load_state_dict(checkpoint["model"])
        ema_model.load_state_dict(checkpoint["ema_model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        scheduler.load_state_dict(checkpoint["scheduler"])
        global_step = checkpoint["global_step"]
    else:
        global_step, init_epoch = 0, 0

    stats = []
    for epoch in range(init_epoch, epochs):
        if epoch > WARMUP_EPOCHS:
            scheduler.step()
        for arrays in digits(epoch, BATCHES, dtype):
            if global_step < WARMUP_EPOCHS * BATCHES:
                lr = LEARNING_RATE * float(global_step) / (WARMUP_EPOCHS * BATCHES)
                for param_group in optimizer.param_groups:
                    param_group["lr"] = lr
            batch = [torch.from_numpy(array) for array in arrays]
            stats.append(training_step(model, ema_model, optimizer, batch))
            global_step += 1
        loss = sum(loss for loss, skipped in stats[-BATCHES:]) / BATCHES
        lr = optimizer.state_dict()["param_groups"][0]["lr"]
        print(f"epoch {epoch}  lr {lr:.5f}  loss {loss:.4f}")
        checkpoint = {
            "epoch": epoch + 1,
            "model": model.state_dict(),
            "ema_model": ema_model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "global_step": global_step,
        }
        torch.save(checkpoint, checkpoint_file)
    return stats, model, ema_model


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        train(folder, epochs=4)
        train(folder, resume=True)
