"""Against torch.optim.Adamax, live."""

import inspect
import itertools

import numpy as np
import optax
import optax.contrib
import pytest

import adamax_optax as ao
from tests.running import random_gradients, trajectory

torch = pytest.importorskip("torch")


def torch_trajectory(params, gradients, **hyper):
    """Return PyTorch's parameters after each step."""
    theta = torch.nn.Parameter(torch.tensor(params))
    optimizer = torch.optim.Adamax([theta], **hyper)
    history = []
    for gradient in gradients:
        theta.grad = torch.tensor(gradient)
        optimizer.step()
        history.append(theta.detach().numpy().copy())
    return np.stack(history)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("eps", "weight_decay", "maximize"),
    [
        # Each value, and the two options that could disturb each other.
        (1e-3, 0.0, False),
        (1e-8, 0.1, True),
        *(
            pytest.param(*options, marks=pytest.mark.slow)
            for options in itertools.product([1e-8, 1e-3], [0.0, 0.1], [False, True])
            if options not in [(1e-3, 0.0, False), (1e-8, 0.1, True)]
        ),
    ],
)
def test_every_combination(eps, weight_decay, maximize, dtype):
    # β1 = 0.99 > β2 = 0.95 included: PyTorch allows it.
    for lr, betas in itertools.product(
        [2e-3, 0.1], [(0.9, 0.999), (0.0, 0.9), (0.99, 0.95)]
    ):
        gradients = random_gradients((3, 4)).astype(dtype)
        params = np.random.default_rng(1).normal(size=(3, 4)).astype(dtype)
        hyper = dict(eps=eps, weight_decay=weight_decay, maximize=maximize)
        expected = torch_trajectory(params, gradients, lr=lr, betas=betas, **hyper)
        tx = ao.adamax(lr, *betas, **hyper)
        got, _ = trajectory(tx, params, gradients)
        # Float rounding over 60 steps: about 1 ulp of |p| + lr a step at most.
        ulp = np.finfo(dtype).eps
        np.testing.assert_allclose(got, expected, rtol=20 * ulp, atol=60 * lr * ulp)


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("maximize", [False, True])
def test_complex_leaves_component_wise(maximize):
    # The functional API takes the modulus; PyTorch's rule is Optax's wrapper away.
    gradients = random_gradients((5,)) + 1j * random_gradients((5,), seed=1)
    gradients = gradients.astype(np.complex64)
    params = np.array([1, 1j, -1, -1j, 0.5 + 0.5j], np.complex64)
    hyper = dict(weight_decay=0.1, maximize=maximize)
    expected = torch_trajectory(params, gradients, lr=0.01, **hyper)
    tx = optax.contrib.split_real_and_imaginary(ao.adamax(0.01, **hyper))
    got, _ = trajectory(tx, params, gradients)
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-6)


def test_pytorch_takes_what_we_take():
    # Leading arguments and defaults of torch.optim.Adamax, in the functional names.
    theirs = inspect.signature(torch.optim.Adamax).parameters
    ours = inspect.signature(ao.adamax).parameters
    names = {"lr": "learning_rate", "eps": "eps", "weight_decay": "weight_decay"}
    for their_name, our_name in names.items():
        assert theirs[their_name].default == ours[our_name].default
    assert theirs["betas"].default == (ours["b1"].default, ours["b2"].default)
    assert theirs["maximize"].default == ours["maximize"].default
