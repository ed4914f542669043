"""The class with `donate=True`: new parameters over the old."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamax_optax as ao
from tests.running import FORMS

nnx = pytest.importorskip("flax.nnx")


def start():
    # Large and small ones, which are kept apart; two of one shape.
    return {"large": jnp.linspace(-1, 1, 8192), "a": jnp.ones((2, 3)), "b": jnp.ones(3)}


def gradients_at(step):
    return jax.tree.map(
        lambda p: jnp.cos(step + jnp.arange(p.size)).reshape(p.shape), start()
    )


def same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize("state_dtype", FORMS)
def test_the_numbers_are_the_same(state_dtype):
    keeping, overwriting = (
        ao.Adamax(
            [{"params": start(), "state_dtype": state_dtype}],
            weight_decay=0.1,
            donate=donate,
        )
        for donate in (False, True)
    )
    for step in range(4):
        expected = keeping([gradients_at(step)])
        same(overwriting([gradients_at(step)]), expected)
    same(overwriting.state_dict()["state"], keeping.state_dict()["state"])


def test_what_was_a_parameter_before_a_step_is_deleted_by_it():
    params = start()
    optimizer = ao.Adamax(params, donate=True)
    first = optimizer(gradients_at(0))
    assert all(x.is_deleted() for x in jax.tree.leaves(params))
    second = optimizer(gradients_at(1))
    assert all(x.is_deleted() for x in jax.tree.leaves(first))
    assert not any(x.is_deleted() for x in jax.tree.leaves(second))
    assert second is optimizer.parameters


def test_a_parameter_without_gradient_keeps_its_value():
    params = start()
    optimizer = ao.Adamax(params, donate=True)
    new = optimizer({**gradients_at(0), "a": None})
    same(new["a"], start()["a"])
    assert not any(x.is_deleted() for x in jax.tree.leaves(params))


def test_a_refused_step_deletes_nothing():
    params = start()
    optimizer = ao.Adamax(params, donate=True)
    with pytest.raises(ValueError, match=r"shape \(2,\), the parameter has \(3,\)"):
        optimizer({**gradients_at(0), "b": jnp.ones(2)})
    assert not any(x.is_deleted() for x in jax.tree.leaves(params))


def test_one_array_in_several_places():
    shared = jnp.arange(1.0, 4.0)
    optimizer = ao.Adamax([shared, shared], lr=0.1, donate=True)
    plain = ao.Adamax([jnp.copy(shared), jnp.copy(shared)], lr=0.1)
    expected = plain([jnp.copy(shared), jnp.ones(3)])
    same(optimizer([shared, jnp.ones(3)]), expected)  # one is its own gradient
    same(optimizer([jnp.ones(3)] * 2), plain([jnp.ones(3)] * 2))


def test_an_array_that_is_also_a_parameter_without_gradient_stays():
    shared = jnp.ones(3)
    optimizer = ao.Adamax([shared, shared], lr=0.5, donate=True)
    first, second = optimizer([jnp.ones(3), None])
    np.testing.assert_allclose(first, 0.5, rtol=1e-6)
    assert second.tolist() == [1, 1, 1]


def test_a_module_is_updated_in_place():
    net, plain = (nnx.Linear(3, 2, rngs=nnx.Rngs(0)) for _ in range(2))
    kernel = net.kernel[...]
    optimizers = ao.Adamax(net, donate=True), ao.Adamax(plain)
    for _ in range(3):
        gradients = nnx.grad(lambda net: (net(jnp.ones(3)) ** 2).sum())(plain)
        for optimizer in optimizers:
            optimizer(gradients)
    assert kernel.is_deleted()
    same(net.kernel[...], plain.kernel[...])


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies_go_on_by_themselves(copied):
    optimizer = ao.Adamax(start(), lr=0.1, donate=True)
    optimizer(gradients_at(0))
    other = copied(optimizer)
    expected = jax.tree.map(np.array, optimizer(gradients_at(1)))
    optimizer(gradients_at(2))
    same(other(gradients_at(1)), expected)
    assert other.parameters["b"].is_deleted() is False


def test_arrays_of_numpy_stay():
    param = np.ones(3, np.float32)
    optimizer = ao.Adamax(param, lr=0.5, donate=True)
    optimizer(np.ones(3, np.float32))
    optimizer(np.ones(3, np.float32))
    assert param.tolist() == [1, 1, 1]
    np.testing.assert_allclose(optimizer.parameters, 0, atol=1e-6)


def test_a_wrong_value_is_named():
    with pytest.raises(ValueError, match="donate must be True or False, got 'yes'"):
        ao.Adamax(jnp.ones(3), donate="yes")
