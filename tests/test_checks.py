"""Bad hyperparameters, gradients and masks: errors that name what is wrong."""

import itertools
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamax_optax as ao

FUNCTIONS = [ao.adamax, ao.adamaxw, ao.scale_by_adamax, ao.scale_by_infinity_norm]

# --- Numbers and flags ----------------------------------------------------------------


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


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", ["b1", "b2", "eps", "eps_outside"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([0.5, 0.5]), r"must be one number, got an array of shape \(2,\)"),
        (jnp.ones(1), r"must be one number, got an array of shape \(1,\)"),
        (np.zeros(0), r"must be one number, got an array of shape \(0,\)"),
        (jnp.array(0.5j), "must be a real number"),
        (np.array("0.5"), "must be a real number"),
        (np.bool_(False), "must be a real number"),
        (Fraction(1, 2), "must be a real number.* of type Fraction"),
        (lambda count: 0.5, "must be a real number.* of type function"),
        (None, "must be a real number.* got None"),
    ],
)
def test_no_number(function, name, value, message):
    with pytest.raises(ValueError, match=f"^{name} {message}"):
        function(**{name: value})


@pytest.mark.parametrize("function", [ao.adamax, ao.adamaxw])
@pytest.mark.parametrize("name", ["learning_rate", "weight_decay"])
@pytest.mark.parametrize("value", [1e39, 10**400, np.float64(1e300)])
def test_infinite_in_float32(function, name, value):
    # 0 times it would be NaN.
    with pytest.raises(ValueError, match=f"{name} must be at least 0 and finite"):
        function(**{name: value})


@pytest.mark.parametrize("function", [ao.adamax, ao.adamaxw])
@pytest.mark.parametrize("value", ["yes", None, 1, [True], jnp.ones(2) > 0])
def test_maximize_is_a_flag(function, value):
    with pytest.raises(ValueError, match="maximize must be True or False, got"):
        function(maximize=value)


@pytest.mark.parametrize("value", [True, np.bool_(True), jnp.array(True)])
def test_flags(value):
    tx = ao.adamax(0.1, maximize=value)
    update, _ = tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
    np.testing.assert_allclose(update, 0.1, rtol=1e-6)


# --- Trees: errors that name the leaf ------------------------------------------------


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


@pytest.mark.parametrize("state_dtype", [None, "uint16"])
@pytest.mark.parametrize(
    "leaf", ["text", object(), np.array(["text"]), np.array([1.0, None]), len]
)
def test_leaf_that_is_no_array(leaf, state_dtype):
    tx = ao.adamax(state_dtype=state_dtype)
    with pytest.raises(ValueError, match=r"parameter at \['a'\] must be an array, got"):
        tx.init({"a": leaf})
    with pytest.raises(ValueError, match=r"gradient at \['a'\] must be an array, got"):
        tx.update({"a": leaf}, tx.init({"a": jnp.ones(2)}))


@pytest.mark.parametrize("optimizer", [ao.adamax, ao.adamaxw])
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"a": jnp.ones(1), "b": None}, r"\['a'\] has shape \(3,\), .* has \(1,\)"),
        ({"a": jnp.ones(()), "b": None}, r"\['a'\] has shape \(3,\), .* has \(\)"),
        ({"a": jnp.ones((2, 3)), "b": None}, r"\['a'\] .* has \(2, 3\)"),
        ({"a": "text", "b": None}, r"parameter at \['a'\] must be an array"),
        ({"a": jnp.arange(3), "b": None}, r"parameter at \['a'\] has dtype int32"),
        ({"b": jnp.ones(3)}, "parameters passed to update do not have the structure"),
        ([jnp.ones(3)], "parameters passed to update do not have the structure"),
    ],
)
def test_parameters_that_do_not_fit_the_gradients(optimizer, params, message):
    # They were broadcast, and looked healthy.
    tx = optimizer(weight_decay=0.1)
    state = tx.init({"a": jnp.ones(3), "b": jnp.ones(2)})
    gradients = {"a": jnp.ones(3), "b": None}
    with pytest.raises(ValueError, match=message):
        tx.update(gradients, state, params)


@pytest.mark.parametrize("shape", [(), (1,), (3, 3)])
def test_gradients_are_not_broadcast_by_the_decay(shape):
    tx = ao.adamax(weight_decay=0.1)
    params = jnp.ones(3)
    with pytest.raises(ValueError, match="gradient at the root has shape"):
        tx.update(jnp.ones(shape), tx.init(params), params)


class Callable(NamedTuple):
    a: object
    b: object

    def __call__(self, params):
        raise AssertionError


@pytest.mark.parametrize("optimizer", [ao.adamax, ao.adamaxw])
@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"a": 1, "b": True}, "Each leaf of mask must be True or False, got 1"),
        ("a", "Each leaf of mask must be True or False, got 'a'"),
        (lambda params: {"a": None, "b": 0.0}, "Each leaf of mask must be .* got 0.0"),
        (
            {"a": True},
            "mask must have the structure of the parameters or be a prefix of it",
        ),
        ([True, False], "mask must have the structure of the parameters"),
        (lambda params: {"a": True, "c": True}, "mask must have the structure"),
        ({"a": {"b": True}, "b": True}, "mask must have the structure"),
    ],
)
def test_mask_that_does_not_fit(optimizer, mask, message):
    params = {"a": jnp.ones(3), "b": jnp.ones(2)}
    with pytest.raises(ValueError, match=message):
        tx = optimizer(weight_decay=0.1, mask=mask)
        tx.update(params, tx.init(params), params)


def test_mask_that_is_a_callable_tree():
    # As the modules of Equinox are.
    params = Callable(jnp.ones(2), jnp.ones(2))
    tx = ao.adamaxw(1.0, weight_decay=0.5, mask=Callable(True, np.bool_(False)))
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    np.testing.assert_array_equal(updates.a, -0.5)
    np.testing.assert_array_equal(updates.b, 0.0)
