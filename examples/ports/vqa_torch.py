"""Visual question answering, in PyTorch: after bottom-up attention and BAN.

    python examples/ports/vqa_torch.py

A list of warm-up rates, then a quarter of the rate every second epoch; gradients
clipped by norm to 0.25; one of two embeddings is frozen: the optimizer does not get it.
"""

import torch
import torch.nn.functional as F
from shared import PAD, initial, questions
from torch import nn

EPOCHS, BATCHES = 10, 8
LR_DEFAULT = 4e-3
GRADUAL_WARMUP = [
    0.5 * LR_DEFAULT,
    1.0 * LR_DEFAULT,
    1.5 * LR_DEFAULT,
    2.0 * LR_DEFAULT,
]
LR_DECAY_EPOCHS = range(5, EPOCHS, 2)
LR_DECAY_RATE = 0.25
GRAD_CLIP = 0.25


class VQA(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(PAD + 1, 12, padding_idx=PAD)
        self.emb_ = nn.Embedding(PAD + 1, 12, padding_idx=PAD)
        self.emb_.weight.requires_grad = False
        self.rnn = nn.GRU(24, 16, batch_first=True)
        self.att_net = nn.Linear(24, 16)
        # No bias: the softmax cancels it, and Adamax would follow the rounding errors.
        self.att_linear = nn.Linear(16, 1, bias=False)
        self.q_net = nn.Linear(16, 32)
        self.v_net = nn.Linear(8, 32)
        self.classifier = nn.Linear(32, 10)

    def forward(self, v, q):
        w_emb = torch.cat((self.emb(q), self.emb_(q)), -1)
        q_emb = self.rnn(w_emb)[0][:, -1]
        every_v = q_emb[:, None].expand(-1, v.shape[1], -1)
        att = F.relu(self.att_net(torch.cat((v, every_v), -1)))
        att = F.softmax(self.att_linear(att), 1)
        v_emb = (att * v).sum(1)
        joint = F.relu(self.q_net(q_emb)) * F.relu(self.v_net(v_emb))
        return self.classifier(joint)


def instance_bce_with_logits(logits, labels):
    loss = F.softplus(logits) - labels * logits
    return loss.mean() * labels.shape[1]


def train(dtype="float32"):
    model = VQA()
    for name, p in model.named_parameters():
        p.data = torch.from_numpy(initial(name, p.shape, dtype))
    optim = torch.optim.Adamax(
        filter(lambda p: p.requires_grad, model.parameters()), lr=LR_DEFAULT
    )

    losses = []
    for epoch in range(EPOCHS):
        total_norm = 0
        if epoch < len(GRADUAL_WARMUP):
            optim.param_groups[0]["lr"] = GRADUAL_WARMUP[epoch]
        elif epoch in LR_DECAY_EPOCHS:
            optim.param_groups[0]["lr"] *= LR_DECAY_RATE
        for v, q, a in questions(epoch, BATCHES, dtype):
            v, q, a = torch.from_numpy(v), torch.from_numpy(q), torch.from_numpy(a)
            loss = instance_bce_with_logits(model(v, q), a)
            loss.backward()
            total_norm += nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP)
            optim.step()
            optim.zero_grad()
            losses.append(loss.item())
        lr, norm = optim.param_groups[0]["lr"], total_norm / BATCHES
        print(f"epoch {epoch}  lr {lr:.5f}  norm {norm:.4f}  loss {losses[-1]:.4f}")
    return losses, dict(model.named_parameters())


if __name__ == "__main__":
    train()
