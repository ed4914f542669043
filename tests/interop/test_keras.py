"""Runs that change between this package and keras.optimizers.Adamax in the middle."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamax_optax as ao
from adamax_optax.interop import from_keras, to_keras
from tests.interop.runs import assert_close, refusal, run

os.environ["KERAS_BACKEND"] = "jax"
keras = pytest.importorskip("keras")

RATE = keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.8)
# Keras' kernels are laid out as Flax's, and its words are its own.
ORDER = {
    "model_conv_kernel": "conv.kernel",
    "model_conv_bias": "conv.bias",
    "model_norm_gamma": "norm.scale",
    "model_norm_beta": "norm.bias",
    "model_fc_kernel": "fc.kernel",
    "model_fc_bias": "fc.bias",
}


@pytest.fixture
def model():
    """A small model with random weights; and images, and gradients for 16 steps."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.layers.Input((4, 4, 2)),
            keras.layers.Conv2D(3, 3, name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Flatten(),
            keras.layers.Dense(2, name="fc"),
        ],
        name="model",
    )


def draw_gradients(model, steps=16):
    rng = np.random.default_rng(0)
    shapes = [tuple(v.shape) for v in model.trainable_variables]
    return [[np.float32(rng.normal(size=s)) for s in shapes] for _ in range(steps)]


def arrays_of(model):
    return [np.asarray(v) for v in model.trainable_variables]


def advance(model, optimizer, gradients):
    for arrays in gradients:
        optimizer.apply(list(map(jnp.asarray, arrays)), model.trainable_variables)
    return arrays_of(model)


def to_tree(arrays):
    conv, conv_bias, scale, bias, fc, fc_bias = arrays
    return {
        "conv": {"kernel": conv, "bias": conv_bias},
        "norm": {"scale": scale, "bias": bias},
        "fc": {"kernel": fc, "bias": fc_bias},
    }


@pytest.mark.parametrize("weight_decay", [None, 0.1])
def test_goes_on_here_and_in_keras(model, weight_decay):
    gradients = draw_gradients(model)
    optimizer = keras.optimizers.Adamax(
        RATE, 0.85, 0.99, 1e-2, weight_decay=weight_decay
    )
    middle = advance(model, optimizer, gradients[:6])
    # Keras decays decoupled, and has its epsilon outside.
    tx = ao.adamaxw(
        optax.exponential_decay(0.1, 5, 0.8),
        0.85,
        0.99,
        eps=0.0,
        eps_outside=1e-2,
        weight_decay=weight_decay or 0.0,
    )
    state = from_keras(optimizer.variables, tx.init(middle))
    params, state = run(tx, middle, state, gradients[6:11])
    assert_close(params, advance(model, optimizer, gradients[6:11]))
    # And from there in Keras, in an optimizer that has only been built.
    again = keras.optimizers.Adamax(RATE, 0.85, 0.99, 1e-2, weight_decay=weight_decay)
    again.build(model.trainable_variables)
    weights = to_keras(state, again.variables)
    again.set_weights(weights)
    for variable, array in zip(model.trainable_variables, params, strict=True):
        variable.assign(array)
    params, _ = run(tx, params, state, gradients[11:])
    assert_close(advance(model, again, gradients[11:]), params)


@pytest.mark.parametrize(
    "order", [ORDER, list(ORDER.values()), dict(enumerate(ORDER.values()))]
)
@pytest.mark.parametrize("by_name", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_order(model, order, by_name):
    optimizer = keras.optimizers.Adamax(0.1)
    middle = advance(model, optimizer, draw_gradients(model, 2))
    variables = optimizer.variables
    if by_name:
        variables = {v.name: np.asarray(v) for v in variables}
    state = from_keras(variables, ao.adamax().init(to_tree(middle)), order=order)
    moments = [np.asarray(v) for v in optimizer.variables[2:]]
    for name, expected in [("mu", moments[::2]), ("nu", moments[1::2])]:
        actual = optax.tree_utils.tree_get(state, name)
        jax.tree.map(np.testing.assert_array_equal, actual, to_tree(expected))
    weights = to_keras(state, variables, order=order)
    for array, variable in zip(weights, optimizer.variables, strict=True):
        np.testing.assert_array_equal(array, np.asarray(variable))


def test_what_else_keras_keeps(model):
    # There is a moving average in between, and no learning rate.
    optimizer = keras.optimizers.Adamax(RATE, use_ema=True)
    middle = advance(model, optimizer, draw_gradients(model, 2))
    state = from_keras(optimizer.variables, ao.adamax().init(middle))
    assert optax.tree_utils.tree_get(state, "count") == 2
    assert_close(
        optax.tree_utils.tree_get(state, "nu"),
        [np.asarray(v) for v in optimizer.variables if v.name.endswith("_norm")],
    )


def test_accumulated_gradients_are_refused(model):
    optimizer = keras.optimizers.Adamax(0.1, gradient_accumulation_steps=2)
    optimizer.build(model.trainable_variables)
    fresh = ao.adamax().init(arrays_of(model))
    for call in (
        lambda: from_keras(optimizer.variables, fresh),
        lambda: to_keras(fresh, optimizer.variables),
    ):
        assert "Keras counts calls and not steps" in refusal(call)


def test_what_does_not_fit():
    class Variable:
        name = "w_norm"

        def __array__(self, dtype=None, copy=None):
            return np.ones(2, np.float32)

    fresh = ao.adamax().init({"w": jnp.ones(2)})
    assert refusal(
        lambda: from_keras([Variable(), Variable()], fresh)
    ).splitlines() == [
        "The list of variables does not fit:",
        "- several variables have the same name",
        "- there is no 'iteration'",
        "- there is no 'w_momentum'",
    ]
    message = refusal(lambda: from_keras({"iteration": -1}, fresh))
    assert "'iteration' must be one whole number of at least 0" in message
    assert "there are no arrays '{}_momentum' and '{}_norm'" in message
