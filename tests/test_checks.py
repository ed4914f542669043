"""Bad hyperparameters and gradients: errors that name the argument and the value."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamax_optax as ao

FUNCTIONS = [ao.adamax, ao.adamaxw, ao.scale_by_adamax, ao.scale_by_infinity_norm]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("b1", 1.0),
        ("b1", -0.1),
        ("b1", float("nan")),
        ("b2", 1),
        ("b2", np.float32(1.5)),
        ("b2", np.array(-1.0)),
        ("eps", -1e-8),
        ("eps", float("inf")),
        ("eps_outside", -1),
        ("eps_outside", float("nan")),
    ],
)
def test_number_out_of_range(function, name, value):
    with pytest.raises(ValueError) as error:
        function(**{name: value})
    assert name in str(error.value)
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("function", [ao.adamax, ao.adamaxw])
@pytest.mark.parametrize("name", ["learning_rate", "weight_decay"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "0.1", None])
def test_rate_out_of_range(function, name, value):
    with pytest.raises(ValueError, match=name) as error:
        function(**{name: value})
    assert repr(value) in str(error.value)


def test_negative_learning_rate_points_to_maximize():
    with pytest.raises(ValueError, match="maximize=True"):
        ao.adamax(-0.1)


def test_bounds_are_accepted():
    ao.adamax(0.0, b1=0.0, b2=0.0, eps=0.0, weight_decay=0.0, eps_outside=0.0)
    ao.adamax(0, 0, 0, 0, 0)


def test_arrays_and_schedules_are_not_looked_at():
    ao.adamax(jnp.array(-1.0), b1=jnp.array(2.0), weight_decay=lambda count: -1.0)


@pytest.mark.parametrize(
    "tx", [ao.adamax(0.1, weight_decay=0.1), ao.adamaxw(), ao.adamaxw(mask=True)]
)
def test_decay_needs_parameters(tx):
    state = tx.init(jnp.ones(2))
    with pytest.raises(ValueError, match=r"weight_decay=.*update\(gradients, state, p"):
        tx.update(jnp.ones(2), state)


def test_decay_of_traced_zero_needs_parameters():
    # Whether it is 0 is not known, and must not be.
    tx = ao.adamax(0.1, weight_decay=jnp.zeros(()))
    with pytest.raises(ValueError, match="weight_decay"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))


@pytest.mark.parametrize("tx", [ao.adamax(), ao.adamaxw(weight_decay=0)])
def test_constant_zero_decay_needs_no_parameters(tx):
    update, _ = tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    np.testing.assert_allclose(update, -2e-3, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_])
def test_parameter_without_a_gradient_dtype(dtype):
    params = {"step": [jnp.zeros(3, dtype)]}
    with pytest.raises(ValueError, match=r"parameter at \['step'\]\[0\] has dtype"):
        ao.adamax().init(params)


def test_gradient_of_integer_dtype():
    tx = ao.adamax()
    with pytest.raises(ValueError, match="gradient at the root has dtype int32.*mask"):
        tx.update(jnp.ones(3, jnp.int32), tx.init(jnp.ones(3)))


def test_float0_gradient():
    def loss(p):
        return p["a"] * 2.0

    params = {"a": jnp.ones(()), "step": jnp.zeros((), jnp.int32)}
    gradients = jax.grad(loss, allow_int=True)(params)
    tx = ao.scale_by_infinity_norm()
    state = tx.init({"a": jnp.ones(()), "step": jnp.ones(())})
    with pytest.raises(ValueError, match=r"\['step'\] has dtype .*float0"):
        tx.update(gradients, state)


@pytest.mark.parametrize(
    ("gradients", "message"),
    [
        ({"a": jnp.ones(3)}, "structure of the parameters"),
        ({"a": jnp.ones(3), "c": jnp.ones(2)}, "structure of the parameters"),
        ([jnp.ones(3), jnp.ones(2)], "structure of the parameters"),
        ({"a": jnp.ones(3), "b": jnp.ones(1)}, r"\['b'\] has shape \(1,\).*\(2,\)"),
        ({"a": jnp.ones((3, 1)), "b": jnp.ones(2)}, r"\['a'\] has shape \(3, 1\)"),
        (
            {"a": jnp.ones(3), "b": jnp.ones(2, jnp.complex64)},
            r"\['b'\] has dtype complex64",
        ),
    ],
)
def test_gradients_that_do_not_fit(gradients, message):
    tx = ao.adamax()
    state = tx.init({"a": jnp.ones(3), "b": jnp.ones(2)})
    with pytest.raises(ValueError, match=message):
        jax.jit(tx.update)(gradients, state)


def test_gradient_where_there_was_no_parameter():
    tx = ao.adamax()
    state = tx.init({"a": jnp.ones(3), "b": None})
    with pytest.raises(ValueError, match=r"gradient at \['b'\] where"):
        tx.update({"a": jnp.ones(3), "b": jnp.ones(2)}, state)


@pytest.mark.parametrize(
    ("function", "name"),
    [*itertools.product(FUNCTIONS, ["b1", "b2"]), (ao.scale_by_bias_correction, "b1")],
)
@pytest.mark.parametrize("value", [jnp.bfloat16(0.999), np.float16(0.9)])
def test_decay_rate_in_half_precision(function, name, value):
    with pytest.raises(ValueError, match=f"{name} has dtype .*float16, too coarse"):
        function(**{name: value})


def test_hyperparameters_injected_in_half_precision():
    # By default Optax keeps them in the parameters' dtype: b2 = 0.999 would be 1.
    params = jnp.ones(2, jnp.bfloat16)
    with pytest.raises(ValueError, match="b1 has .*hyperparam_dtype=jnp.float32"):
        optax.inject_hyperparams(ao.adamax)(0.1).init(params)
    tx = optax.inject_hyperparams(ao.adamax, hyperparam_dtype=jnp.float32)(0.1)
    assert tx.init(params).hyperparams["b2"] == np.float32(0.999)
