"""Gradients, parameters and masks that do not fit: errors that name the leaf."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamax_optax as ao


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
        ({"a": True}, "mask must have the structure of the parameters or be a prefix"),
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
