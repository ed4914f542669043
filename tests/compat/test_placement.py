"""The class on several devices: parameters stay where they are, and no step talks."""

import copy
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import adamax_optax as ao
from tests.compat import inside

P = PartitionSpec
# Tensor-parallel weights, replicated biases, scalars, and alike small parameters.
PLACES = {
    "up": ((16, 64), P(None, "model")),
    "down": ((64, 16), P("model", None)),
    "embed": ((32, 16), P(("data", "model"))),
    "bias": ((64,), P()),
    "bias2": ((64,), P()),
    "split": ((64,), P("model")),
    "scalar": ((), P()),
    "scalar2": ((), P()),
    "empty": ((0, 4), P()),
}
COLLECTIVES = r"all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"


@pytest.fixture(
    params=["auto", "explicit", pytest.param("mixed", marks=pytest.mark.slow)]
)
def mesh(request):
    kinds = {
        "auto": (AxisType.Auto, AxisType.Auto),
        "explicit": (AxisType.Explicit, AxisType.Explicit),
        "mixed": (AxisType.Explicit, AxisType.Auto),
    }[request.param]
    return jax.make_mesh((2, 4), ("data", "model"), axis_types=kinds)


def placed(mesh, value):
    return {
        name: jax.device_put(
            np.full(shape, value, np.float32), NamedSharding(mesh, spec)
        )
        for name, (shape, spec) in PLACES.items()
    }


def assert_placed(mesh, params):
    for name, (shape, spec) in PLACES.items():
        wanted = NamedSharding(mesh, spec)
        assert params[name].sharding.is_equivalent_to(wanted, len(shape)), name


@pytest.mark.parametrize(
    ("state_dtype", "donate"),
    [
        (None, False),
        (jnp.uint16, True),
        *(
            pytest.param(form, donate, marks=pytest.mark.slow)
            for form in (None, jnp.bfloat16, jnp.float16, jnp.uint16)
            for donate in (False, True)
            if (form, donate) not in ((None, False), (jnp.uint16, True))
        ),
    ],
)
def test_every_parameter_stays_where_it_is(mesh, state_dtype, donate, monkeypatch):
    compilations = inside.count_compilations(monkeypatch)
    group = {"params": placed(mesh, 1.0), "state_dtype": state_dtype}
    optimizer = ao.Adamax([group], lr=0.25, weight_decay=0.1, donate=donate)
    gradients = placed(mesh, 0.5)
    leaves = jax.tree.leaves(gradients)
    program = inside.lowered(optimizer, leaves).compile().as_text()
    assert not re.findall(COLLECTIVES, program)
    compilations()
    for _ in range(3):
        (new,) = optimizer([gradients])
    assert compilations() == 1
    assert_placed(mesh, new)
    # The same as on one device.
    alone = ao.Adamax(
        [{**group, "params": jax.tree.map(np.asarray, placed(mesh, 1.0))}],
        lr=0.25,
        weight_decay=0.1,
    )
    for _ in range(3):
        (expected,) = alone([jax.tree.map(np.asarray, gradients)])
    for name in PLACES:
        np.testing.assert_allclose(new[name], expected[name], rtol=2e-6)


@pytest.mark.parametrize(
    "state_dtype", [pytest.param(None, marks=pytest.mark.slow), jnp.uint16]
)
def test_moments_lie_beside_their_parameters(mesh, state_dtype):
    group = {"params": placed(mesh, 1.0), "state_dtype": state_dtype}
    optimizer = ao.Adamax([group])
    optimizer([placed(mesh, 1.0)])
    names = sorted(PLACES)
    for k, entry in optimizer.state_dict()["state"].items():
        shape, spec = PLACES[names[k]]
        for name in ("exp_avg", "exp_inf"):
            place = NamedSharding(mesh, spec)
            assert entry[name].sharding.is_equivalent_to(place, len(shape))


@pytest.mark.parametrize(
    ("way", "state_dtype"),
    [
        ("state_dict", jnp.uint16),
        ("pickle", None),
        *(
            pytest.param(way, form, marks=pytest.mark.slow)
            for way in ("state_dict", "copy", "deepcopy", "pickle")
            for form in (None, jnp.bfloat16, jnp.uint16)
            if (way, form) not in (("state_dict", jnp.uint16), ("pickle", None))
        ),
    ],
)
def test_a_run_goes_on(mesh, way, state_dtype):
    group = {"params": placed(mesh, 1.0), "state_dtype": state_dtype}
    optimizer = ao.Adamax([group], lr=0.25)
    optimizer([placed(mesh, 0.5)])
    missing = {**placed(mesh, -0.5), "scalar": None, "up": None, "split": None}
    optimizer([missing])
    if way == "state_dict":
        twin = ao.Adamax(
            [{"params": optimizer.parameters[0], "state_dtype": state_dtype}]
        )
        twin.load_state_dict(optimizer.state_dict())
    elif way == "pickle":
        # JAX pickles the values of an array, and not where it lies.
        twin = pickle.loads(pickle.dumps(optimizer))
    else:
        twin = getattr(copy, way)(optimizer)
    for gradients in (placed(mesh, 1.0), missing):
        if way == "pickle":
            gradients = jax.tree.map(np.asarray, gradients)
        (expected,), (new,) = optimizer([gradients]), twin([gradients])
        jax.tree.map(np.testing.assert_array_equal, new, expected)
        if way != "pickle":
            assert_placed(mesh, new)


def test_parameters_that_the_user_moves(mesh):
    optimizer = ao.Adamax({"w": jnp.ones((8, 8)), "b": jnp.ones(8)}, lr=0.5)
    gradients = {"w": jnp.ones((8, 8)), "b": jnp.ones(8)}
    optimizer(gradients)
    places = {
        "w": NamedSharding(mesh, P("model")),
        "b": NamedSharding(mesh, P()),
    }
    moved = jax.tree.map(jax.device_put, optimizer.parameters, places)
    optimizer.param_groups[0]["params"] = moved
    new = optimizer(jax.tree.map(jax.device_put, gradients, places))
    for name, place in places.items():
        assert new[name].sharding.is_equivalent_to(place, new[name].ndim)
        np.testing.assert_allclose(new[name], 0, atol=1e-6)
    assert int(optimizer.state_dict()["state"][0]["step"]) == 2


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_a_mesh_of_one_device(kind):
    mesh = jax.make_mesh((1,), ("x",), axis_types=(kind,))
    params = [
        jax.device_put(jnp.ones(8), NamedSharding(mesh, spec))
        for spec in (P("x"), P("x"), P(), P())
    ]
    optimizer = ao.Adamax([*params[:2], *params[2:]], lr=0.5)
    for _ in range(2):
        new = optimizer(params)
    for array, param in zip(new, params, strict=True):
        assert array.sharding == param.sharding
        np.testing.assert_allclose(array, 0, atol=1e-6)


@pytest.mark.parametrize("mode", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("donate", [False, True])
def test_parameters_without_a_place_follow_their_gradients(mode, donate):
    # As after a pickle, whose arrays are on one device. They would share arrays there.
    mesh = jax.make_mesh((8,), ("d",), axis_types=(mode,))
    specs = {(16,): P("d"), (2, 8): P(None, "d"), (3,): P(), (8, 2): P("d", None)}
    gradients = [
        jax.device_put(jnp.ones(shape), NamedSharding(mesh, spec))
        for shape, spec in [*specs.items(), *specs.items()]
    ]
    optimizer = ao.Adamax([jnp.ones(g.shape) for g in gradients], 0.1, donate=donate)
    for step in range(1, 4):
        for new, gradient in zip(optimizer(gradients), gradients, strict=True):
            np.testing.assert_allclose(new, 1 - 0.1 * step, rtol=1e-6)
            assert new.sharding.is_equivalent_to(gradient.sharding, new.ndim)
