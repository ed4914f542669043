"""What docs/comparison.md says of Optax, PyTorch, Keras and MindSpore is so.

MindSpore's column is that of the runs recorded by `record.py` and `record_limits.py` in
`tests/mindspore`.
"""

import inspect
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import adamax_optax as ao

PAGE = Path(__file__).parents[2] / "docs" / "comparison.md"
MINDSPORE = Path(__file__).parents[1] / "data" / "mindspore"
ZERO_GRADIENTS = 1000


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def keras(monkeypatch):
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "jax")
    return pytest.importorskip("keras")


def optax_norm(tx, dtype):
    """Return parameters after a zero gradient, and u long after a gradient of 1."""
    params = jnp.ones(2, dtype)
    update = jax.jit(tx.update)
    updates, state = update(jnp.zeros_like(params), tx.init(params), params)
    after_zero = params + updates
    _, state = update(params, tx.init(params), params)
    zeros = jnp.zeros_like(params)
    state = jax.lax.fori_loop(
        0, ZERO_GRADIENTS, lambda _, s: tx.update(zeros, s, params)[1], state
    )
    return after_zero, optax.tree_utils.tree_get(state, "nu")


@pytest.mark.usefixtures("lenient_promotion")
def test_optax_has_neither_coupled_decay_nor_maximize():
    for function in (optax.adamax, optax.adamaxw):
        assert "maximize" not in inspect.signature(function).parameters
    assert "weight_decay" not in inspect.signature(optax.adamax).parameters
    # Decoupled: what the moments remember does not know of the decay.
    params = jnp.full(2, 3.0)
    states = [
        tx.update(jnp.ones(2), tx.init(params), params)[1]
        for tx in (optax.adamaxw(0.1, weight_decay=0.5), optax.adamax(0.1))
    ]
    mu, nu = (
        [optax.tree_utils.tree_get(state, name) for state in states]
        for name in ("mu", "nu")
    )
    np.testing.assert_array_equal(*mu)
    np.testing.assert_array_equal(*nu)


@pytest.mark.usefixtures("lenient_promotion")
def test_half_precision_in_optax_and_here():
    broken, frozen = (
        optax_norm(optax.adamax(1e-3), dtype) for dtype in (jnp.float16, jnp.bfloat16)
    )
    assert np.isnan(broken[0].astype(np.float32)).all()
    np.testing.assert_array_equal(frozen[1].astype(np.float32), 1)
    for dtype in (jnp.float16, jnp.bfloat16):
        after_zero, u = optax_norm(ao.adamax(1e-3), dtype)
        np.testing.assert_array_equal(after_zero.astype(np.float32), 1)
        np.testing.assert_allclose(u, 0.999**ZERO_GRADIENTS, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_in_pytorch(torch, dtype):
    param = torch.ones(2, dtype=getattr(torch, dtype))
    param.grad = torch.zeros_like(param)
    torch.optim.Adamax([param]).step()
    assert bool(param.isnan().all()) == (dtype == "float16")
    param = torch.ones_like(param)
    optimizer = torch.optim.Adamax([param])
    param.grad = torch.ones_like(param)
    optimizer.step()
    param.grad = torch.zeros_like(param)
    for _ in range(ZERO_GRADIENTS):
        optimizer.step()
    u = optimizer.state[param]["exp_inf"].float()
    assert bool((u == 1).all()) == (dtype == "bfloat16")


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_in_keras(keras, dtype):
    variable = keras.Variable(np.ones(2), dtype=dtype)
    optimizer = keras.optimizers.Adamax(1e-3)
    optimizer.build([variable])
    optimizer.apply([jnp.zeros(2, dtype)])
    nan = np.isnan(np.asarray(variable.value, np.float32))
    assert nan.all() == (dtype == "float16")
    if dtype == "bfloat16":
        optimizer.apply([jnp.ones(2, dtype)])
        for _ in range(50):
            optimizer.apply([jnp.zeros(2, dtype)])
        (norm,) = (v for v in optimizer.variables if v.name.endswith("norm"))
        np.testing.assert_array_equal(np.asarray(norm.value, np.float32), 1)


def test_keras_decays_decoupled_and_has_no_groups_and_no_maximize(keras):
    parameters = inspect.signature(keras.optimizers.Adamax).parameters
    assert "maximize" not in parameters
    assert "weight_decay" in parameters
    # Before the step, and past the moments: theta <- theta - lr * decay * theta.
    variable = keras.Variable(np.full(2, 3.0), dtype="float32")
    optimizer = keras.optimizers.Adamax(0.1, weight_decay=0.5)
    optimizer.build([variable])
    optimizer.apply([jnp.zeros(2)])
    np.testing.assert_allclose(variable.value, 3.0 - 0.1 * 0.5 * 3.0, rtol=1e-6)
    with pytest.raises(AttributeError):
        keras.optimizers.Adamax(0.1).build([{"params": [variable]}])


def test_pytorch_keeps_8_bytes_and_maximizes(torch):
    param = torch.ones(10)
    param.grad = torch.ones(10)
    optimizer = torch.optim.Adamax([param], lr=0.1, maximize=True)
    optimizer.step()
    assert torch.allclose(param, torch.full((10,), 1.1))
    moments = [optimizer.state[param][name] for name in ("exp_avg", "exp_inf")]
    assert sum(m.numel() * m.element_size() for m in moments) == 80


RATES = [0.1, 0.25]


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("make", [optax.adamax, ao.adamax])
def test_learning_rates_are_swept_by_vmap_in_optax_and_here(make):
    def step(rate):
        tx = make(rate)
        return tx.update(jnp.ones(2), tx.init(jnp.ones(2)))[0]

    updates = jax.vmap(step)(jnp.array(RATES))
    np.testing.assert_allclose(updates, [[-rate] * 2 for rate in RATES], rtol=1e-6)


def test_learning_rates_are_swept_by_vmap_in_keras(keras):
    variables = [keras.Variable(np.ones(2, np.float32))]
    optimizer = keras.optimizers.Adamax(0.5)
    optimizer.build(variables)
    (place,) = (
        i for i, v in enumerate(optimizer.variables) if v.path.endswith("learning_rate")
    )

    def step(rate):
        own = [v.value for v in optimizer.variables]
        own[place] = rate
        [new], _ = optimizer.stateless_apply(own, [jnp.ones(2)], [jnp.ones(2)])
        return new

    new = jax.vmap(step)(jnp.array(RATES))
    np.testing.assert_allclose(new, [[1 - rate] * 2 for rate in RATES], rtol=1e-5)


def test_pytorch_refuses_a_vmap_over_learning_rates(torch):
    def step(rate):
        param = torch.nn.Parameter(torch.ones(2))
        param.grad = torch.ones(2)
        torch.optim.Adamax([param], lr=rate).step()
        return param

    with pytest.raises(RuntimeError, match="vmap"):
        torch.func.vmap(step)(torch.tensor(RATES))


@pytest.mark.parametrize("make", [optax.adamax, ao.adamax])
def test_state_lies_where_its_parameter_does_in_optax_and_here(make):
    mesh = jax.make_mesh((8,), ("model",))
    place = NamedSharding(mesh, P("model"))
    state = make(0.1).init(jax.device_put(jnp.ones((8, 2)), place))
    for name in ("mu", "nu"):
        moment = optax.tree_utils.tree_get(state, name)
        assert moment.sharding.is_equivalent_to(place, 2)


def test_state_lies_where_its_parameter_does_in_pytorch(torch, tmp_path):
    dist = pytest.importorskip("torch.distributed")
    tensors = pytest.importorskip("torch.distributed.tensor")
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
        place = [tensors.Shard(0)]
        ones = tensors.distribute_tensor(torch.ones(8, 2), mesh, place)
        param = torch.nn.Parameter(ones)
        param.grad = ones
        optimizer = torch.optim.Adamax([param])
        optimizer.step()
        for name in ("exp_avg", "exp_inf"):
            assert list(optimizer.state[param][name].placements) == place
    finally:
        dist.destroy_process_group()


def test_state_lies_where_its_parameter_does_in_keras(keras):
    there = keras.distribution
    mesh = there.DeviceMesh((8,), ["model"], there.list_devices())
    layout = there.LayoutMap(mesh)
    layout["sharded"] = there.TensorLayout(["model", None])
    with there.ModelParallel(layout_map=layout, batch_dim_name="model").scope():
        variable = keras.Variable(np.ones((8, 2), np.float32), name="sharded")
        optimizer = keras.optimizers.Adamax(0.1)
        optimizer.build([variable])
    assert not variable.value.sharding.is_fully_replicated
    for moment in optimizer.variables[2:]:
        assert moment.value.sharding.is_equivalent_to(variable.value.sharding, 2)


def test_mindspore_was_recorded_with_what_the_table_says():
    cases = json.loads((MINDSPORE / "cases.json").read_text())["cases"]
    groups = [group for case in cases.values() for group in case["groups"]]
    assert any(group.get("maximize") for group in groups)
    assert any(group.get("weight_decay") for group in groups)
    assert any(len(case["groups"]) > 1 for case in cases.values())


def test_mindspore_was_recorded_with_the_limits_in_the_table():
    limits = json.loads((MINDSPORE / "limits.json").read_text())
    assert limits["float16, zero gradient"] == ["nan", "nan"]
    assert limits["bfloat16, gradient of 1"] == "TypeError"  # on CPU
    assert limits["vmap, optimizer made inside"] == "ValueError"
    assert limits["vmap, optimizer made outside"] == "ValueError"
    # A learning rate of 1e-3 is live for a float only.
    assert limits["lr set to the float 0.5"] == ["0.5", "0.5"]
    assert limits["lr set to the int 1"] == ["0.999", "0.999"]


def test_there_are_as_many_schedulers_as_the_table_says():
    classes = [name for name in ao.lr_scheduler.__all__ if name != "LRScheduler"]
    functions = [name for name in ao.schedules.__all__ if name != "per_epoch"]
    said = f"{len(classes)} classes, {len(functions)} functions"
    assert f"| {said} |" in PAGE.read_text()
