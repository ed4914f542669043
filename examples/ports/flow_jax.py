"""The same in JAX: plain arrays and `adamax_optax.Adamax`; compare with flow_torch.py.

    python examples/ports/flow_jax.py

`LambdaLR` with a function, stepped at the beginning of every epoch, the first included;
optimizer, with its parameters, and scheduler are pickled as they are, and training
resumes from them.
"""

import os
import pickle
import tempfile

import jax
import jax.numpy as jnp
from shared import initial, moons

import adamax_optax as ao

EPOCHS, BATCHES, WARMUP = 10, 8, 5
LEARNING_RATE = 1e-2

# The parameters of one coupling; there is a list of four, as in `nn.ModuleList`.
SHAPES = {
    "fc1.weight": (16, 1),
    "fc1.bias": (16,),
    "fc2.weight": (2, 16),
    "fc2.bias": (2,),
}


def linear(params, name, x):
    return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]


def coupling(params, x1, x2):
    """Scale and shift one coordinate by functions of the other."""
    hidden = jnp.tanh(linear(params, "fc1", x1))
    log_scale, shift = jnp.split(linear(params, "fc2", hidden), 2, -1)
    log_scale = jnp.tanh(log_scale)
    return x2 * jnp.exp(log_scale) + shift, log_scale.sum(-1)


@jax.jit
@jax.value_and_grad
def grad_fn(model, x):
    """Return the mean negative log-likelihood, and its gradient."""
    x1, x2 = jnp.split(x, 2, -1)
    log_det = 0
    for params in model:
        x2, more = coupling(params, x1, x2)
        x1, x2, log_det = x2, x1, log_det + more
    return (0.5 * (x1**2 + x2**2).sum(-1) - log_det).mean()


def lr_lambda(epoch):
    return min(1.0, (epoch + 1) / WARMUP) * 0.9**epoch


def train(folder, epochs=EPOCHS, resume=False, dtype="float32"):
    checkpoint_file = os.path.join(folder, "flow.pickle")
    if resume:
        with open(checkpoint_file, "rb") as file:
            init_epoch, optimizer, scheduler = pickle.load(file)
    else:
        init_epoch = 0
        model = [
            {
                name: jnp.asarray(initial(f"couplings.{i}.{name}", shape, dtype))
                for name, shape in SHAPES.items()
            }
            for i in range(4)
        ]
        optimizer = ao.Adamax(model, lr=LEARNING_RATE, weight_decay=5e-5)
        scheduler = ao.lr_scheduler.LambdaLR(optimizer, lr_lambda=lr_lambda)

    losses = []
    for epoch in range(init_epoch, epochs):
        scheduler.step()
        for x in moons(epoch, BATCHES, dtype):
            loss, grads = grad_fn(optimizer.parameters, x)
            optimizer.step(grads)
            losses.append(loss.item())
        lr, loss = scheduler.get_last_lr()[0], sum(losses[-BATCHES:]) / BATCHES
        print(f"epoch {epoch}  lr {lr:.5f}  loss {loss:.4f}")
        with open(checkpoint_file, "wb") as file:
            pickle.dump((epoch + 1, optimizer, scheduler), file)
    return losses, optimizer.parameters


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        train(folder, epochs=5)
        train(folder, resume=True)
