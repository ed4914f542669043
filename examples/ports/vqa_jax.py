"""The same in JAX: plain arrays and `adamax_optax.Adamax`; compare with vqa_torch.py.

    python examples/ports/vqa_jax.py

A list of warm-up rates, then a quarter of the rate every second epoch; gradients
clipped by norm to 0.25; one of two embeddings is frozen: the optimizer does not get it.
"""

import jax
import jax.numpy as jnp
from shared import PAD, initial, questions
from torch_like import clip_grad_norm

import adamax_optax as ao

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

# The parameters are a dict with PyTorch's names and shapes.
SHAPES = {
    "emb.weight": (PAD + 1, 12),
    "emb_.weight": (PAD + 1, 12),
    "rnn.weight_ih_l0": (48, 24),
    "rnn.weight_hh_l0": (48, 16),
    "rnn.bias_ih_l0": (48,),
    "rnn.bias_hh_l0": (48,),
    "att_net.weight": (16, 24),
    "att_net.bias": (16,),
    # No bias: the softmax cancels it, and Adamax would follow the rounding errors.
    "att_linear.weight": (1, 16),
    "q_net.weight": (32, 16),
    "q_net.bias": (32,),
    "v_net.weight": (32, 8),
    "v_net.bias": (32,),
    "classifier.weight": (10, 32),
    "classifier.bias": (10,),
}


def linear(model, name, x):
    return x @ model[f"{name}.weight"].T + model.get(f"{name}.bias", 0)


def embedding(weight, q):
    # As with `padding_idx`, the row of the padding is never trained.
    weight = weight.at[PAD].set(jax.lax.stop_gradient(weight[PAD]))
    return weight[q]


def gru(model, x):
    """Return the last output. The gates are PyTorch's: Flax has one bias less."""

    def cell(h, x):
        r_x, z_x, n_x = jnp.split(x, 3, -1)
        hidden = h @ model["rnn.weight_hh_l0"].T + model["rnn.bias_hh_l0"]
        r_h, z_h, n_h = jnp.split(hidden, 3, -1)
        r, z = jax.nn.sigmoid(r_x + r_h), jax.nn.sigmoid(z_x + z_h)
        n = jnp.tanh(n_x + r * n_h)
        return (1 - z) * n + z * h, None

    x = x @ model["rnn.weight_ih_l0"].T + model["rnn.bias_ih_l0"]
    h = jnp.zeros((len(x), 16), x.dtype)
    return jax.lax.scan(cell, h, x.swapaxes(0, 1))[0]


def forward(model, v, q):
    emb, emb_ = model["emb.weight"], model["emb_.weight"]
    w_emb = jnp.concatenate((embedding(emb, q), embedding(emb_, q)), -1)
    q_emb = gru(model, w_emb)
    every_v = jnp.broadcast_to(q_emb[:, None], (*v.shape[:2], 16))
    att = jax.nn.relu(linear(model, "att_net", jnp.concatenate((v, every_v), -1)))
    att = jax.nn.softmax(linear(model, "att_linear", att), 1)
    v_emb = (att * v).sum(1)
    joint = jax.nn.relu(linear(model, "q_net", q_emb))
    joint = joint * jax.nn.relu(linear(model, "v_net", v_emb))
    return linear(model, "classifier", joint)


def instance_bce_with_logits(logits, labels):
    loss = jax.nn.softplus(logits) - labels * logits
    return loss.mean() * labels.shape[1]


@jax.jit
@jax.value_and_grad
def grad_fn(trained, frozen, v, q, a):
    return instance_bce_with_logits(forward(trained | frozen, v, q), a)


def train(dtype="float32"):
    model = {
        name: jnp.asarray(initial(name, shape, dtype)) for name, shape in SHAPES.items()
    }
    frozen = {"emb_.weight": model["emb_.weight"]}
    optim = ao.Adamax(
        {name: p for name, p in model.items() if name not in frozen}, lr=LR_DEFAULT
    )

    losses = []
    for epoch in range(EPOCHS):
        total_norm = 0
        if epoch < len(GRADUAL_WARMUP):
            optim.param_groups[0]["lr"] = GRADUAL_WARMUP[epoch]
        elif epoch in LR_DECAY_EPOCHS:
            optim.param_groups[0]["lr"] *= LR_DECAY_RATE
        for v, q, a in questions(epoch, BATCHES, dtype):
            loss, grads = grad_fn(optim.parameters, frozen, v, q, a)
            grads, norm = clip_grad_norm(grads, GRAD_CLIP)
            total_norm += norm
            optim.step(grads)
            losses.append(loss.item())
        lr, norm = optim.param_groups[0]["lr"], total_norm / BATCHES
        print(f"epoch {epoch}  lr {lr:.5f}  norm {norm:.4f}  loss {losses[-1]:.4f}")
    return losses, optim.parameters | frozen


if __name__ == "__main__":
    train()
