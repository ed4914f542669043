"""Gradients of the class that come and go."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamax_optax as ao
from tests.compat import inside
from tests.running import FORMS, random_gradients

torch = pytest.importorskip("torch")

SHAPES = [(3,), (3,), (2, 3), (), (5000,), (3,)] * 2


def subsets(steps, seed=0):
    return np.random.default_rng(seed).integers(2, size=(steps, len(SHAPES))) > 0


@pytest.mark.parametrize("donate", [False, True])
def test_numbers_are_those_of_pytorch(donate):
    params = [np.full(shape, 1.0, np.float32) for shape in SHAPES]
    ours = ao.Adamax(list(map(jnp.asarray, params)), weight_decay=0.1, donate=donate)
    theirs = [torch.tensor(param, requires_grad=True) for param in params]
    reference = torch.optim.Adamax(theirs, weight_decay=0.1)
    for step, present in enumerate(subsets(40)):
        rng = np.random.default_rng(step)
        for k, (param, shape) in enumerate(zip(theirs, SHAPES, strict=True)):
            gradient = np.float32(rng.normal(size=shape))
            param.grad = torch.tensor(gradient) if present[k] else None
        ours(
            [p.grad if p.grad is None else jnp.asarray(p.grad.numpy()) for p in theirs]
        )
        reference.step()
    for new, expected in zip(ours.parameters, theirs, strict=True):
        np.testing.assert_allclose(new, expected.detach(), rtol=2e-6, atol=1e-6)
    state, saved = ours.state_dict()["state"], reference.state_dict()["state"]
    assert sorted(state) == sorted(saved)
    for k, entry in saved.items():
        assert int(state[k]["step"]) == int(entry["step"])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("state_dtype", [None, jnp.uint16])
def test_two_programs_do_for_all_subsets(state_dtype, dtype, monkeypatch):
    compilations = inside.count_compilations(monkeypatch)
    # A shape that no other test compiles.
    params = [jnp.ones((*shape, 2), dtype) for shape in SHAPES]
    optimizer = ao.Adamax([{"params": params, "state_dtype": state_dtype}])
    for present in subsets(60):
        optimizer(
            [[p if keep else None for p, keep in zip(params, present, strict=True)]]
        )
    optimizer([params])
    assert compilations() == 2


@pytest.mark.parametrize("state_dtype", FORMS)
def test_what_has_no_gradient_stays_bit_for_bit(state_dtype):
    gradients = random_gradients((3,), steps=6)
    group = {"params": [jnp.ones(3)] * 4, "state_dtype": state_dtype}
    optimizer = ao.Adamax([group], lr=0.1)
    optimizer([[jnp.ones(3)] * 4])
    for step, gradient in enumerate(gradients):
        g = jnp.asarray(gradient, jnp.float32)
        keeps = step % 4
        before = jax.tree.map(
            np.asarray, (optimizer.parameters, optimizer.state_dict())
        )
        optimizer([[None if k == keeps else g for k in range(4)]])
        after = jax.tree.map(np.asarray, (optimizer.parameters, optimizer.state_dict()))
        np.testing.assert_array_equal(after[0][0][keeps], before[0][0][keeps])
        np.testing.assert_equal(after[1]["state"][keeps], before[1]["state"][keeps])
        assert not np.array_equal(after[0][0][keeps - 1], before[0][0][keeps - 1])


def test_no_gradient_at_all_is_no_step():
    optimizer = ao.Adamax([jnp.ones(3)] * 2, weight_decay=0.5)
    optimizer([None, None])
    assert optimizer.state_dict()["state"] == {}
    np.testing.assert_array_equal(optimizer.parameters, 1.0)


def test_a_gradient_that_does_not_fit_beside_missing_ones():
    optimizer = ao.Adamax([jnp.ones(3), jnp.ones(2)])
    with pytest.raises(ValueError, match=r"params\[1\] has shape \(3,\)"):
        optimizer([None, jnp.ones(3)])
    optimizer.param_groups[0]["params"] = [jnp.ones(3), jnp.ones(4)]
    with pytest.raises(ValueError, match=r"params\[1\] must stay .* \(2,\)"):
        optimizer([jnp.ones(3), None])


@pytest.mark.parametrize("gradients_too", [False, True])
def test_arrays_that_are_committed_to_a_device(gradients_too, monkeypatch):
    compilations = inside.count_compilations(monkeypatch)
    device = jax.devices()[0]
    free = [jnp.ones((n, 3 + gradients_too)) for n in range(1, 8)]
    params = [jax.device_put(x, device) for x in free]
    gradients = params if gradients_too else free
    optimizer = ao.Adamax(params)
    for present in np.random.default_rng(0).integers(2, size=(20, 7)) > 0:
        moments = inside.arrays(optimizer)
        optimizer(
            [g if keep else None for g, keep in zip(gradients, present, strict=True)]
        )
    assert compilations() == 1
    assert all(x.is_deleted() for x in moments)


def test_a_missing_gradient_when_the_parameters_change_too():
    params = {"a": jnp.ones(2), "b": jnp.ones(3), "c": jnp.ones(2)}
    optimizer = ao.Adamax(params, lr=0.5)
    optimizer(params)
    half = {**optimizer.parameters, "a": jnp.ones(2, jnp.bfloat16)}
    optimizer.param_groups[0]["params"] = half
    new = optimizer({**params, "b": None})
    np.testing.assert_array_equal(new["b"], half["b"])
    assert not np.array_equal(new["c"], half["c"])
    steps = [int(e["step"]) for e in optimizer.state_dict()["state"].values()]
    assert steps == [2, 1, 2]


def test_no_memory_is_kept_for_missing_gradients():
    params = [jnp.ones(100_003), jnp.ones(100_019)]
    optimizer = ao.Adamax(params)
    optimizer(params)
    before = sum(x.nbytes for x in jax.live_arrays())
    optimizer([None, params[1]])
    optimizer([params[0], None])
    assert sum(x.nbytes for x in jax.live_arrays()) < before + 1000


def test_weakly_typed_gradients_overwrite_the_moments():
    optimizer = ao.Adamax([jnp.ones(3), jnp.ones(2)])
    for _ in range(4):
        moments = inside.arrays(optimizer)
        optimizer([jnp.full(3, 1.0), jnp.full(2, 1.0)])
    assert all(x.is_deleted() for x in moments)


@pytest.mark.parametrize("missing", [False, True])
def test_gradients_in_numpy_may_be_overwritten_after_the_step(missing):
    size = 1 << 17
    optimizer = ao.Adamax([jnp.ones(size), jnp.ones(3)])
    gradient = np.ones(size, np.float32)
    for _ in range(3):
        optimizer([gradient, None if missing else np.ones(3, np.float32)])
        gradient[:] = 100.0
        gradient[:] = 1.0
        state = optimizer.state_dict()["state"][0]
    assert float(jnp.max(state["exp_inf"])) < 1.1
