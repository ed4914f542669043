"""Where state lies: beside its parameter, or divided over devices."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import adamax_optax as ao
from adamax_optax._sharding import filled_like, replicated_beside
from tests.running import FORMS

# --- New state: with the sharding of its parameter, and nothing else of it ------------

# All of one shape, for which XLA could make one constant.
SPECS = [P("x"), P(None, "y"), P("x", "y"), P("y", "x"), P(("x", "y")), P()]


def mesh_of(*types):
    return jax.make_mesh((2, 4), ("x", "y"), axis_types=types or (AxisType.Auto,) * 2)


@pytest.fixture(params=[False, True], ids=["GSPMD", "Shardy"])
def partitioner(request):
    before = jax.config.jax_use_shardy_partitioner
    jax.config.update("jax_use_shardy_partitioner", request.param)
    yield
    jax.config.update("jax_use_shardy_partitioner", before)


@pytest.mark.usefixtures("partitioner")
@pytest.mark.parametrize("mode", [AxisType.Auto, AxisType.Explicit])
def test_each_parameter_gives_its_own_sharding(mode):
    places = [NamedSharding(mesh_of(mode, mode), spec) for spec in SPECS]
    params = [jax.device_put(jnp.ones((8, 16)), place) for place in places]

    def init(params):
        kinds = [(0, jnp.float32), (0.5, jnp.bfloat16), (3, jnp.uint16)]
        return [[filled_like(p, *kind) for kind in kinds] for p in params]

    compiled = jax.jit(init).lower(params).compile()
    for state in (init(params), compiled(params)):
        for arrays, place in zip(state, places, strict=True):
            for array, value in zip(arrays, [0, 0.5, 3], strict=True):
                assert array.sharding.is_equivalent_to(place, 2)
                assert (np.asarray(array) == value).all()
    assert "all-" not in compiled.as_text()
    assert "collective" not in compiled.as_text()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64, jnp.uint16])
@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, 2.0, 2.0 + 1.0j])
def test_values_of_the_parameter_have_no_part(value, dtype):
    param = jnp.full(3, value)
    for fill in (filled_like, jax.jit(filled_like, static_argnums=(1, 2))):
        state = fill(param, 1, dtype)
        assert state.dtype == dtype
        assert not state.weak_type
        np.testing.assert_array_equal(state, np.ones(3, dtype))


def test_nothing_to_differentiate():
    def loss(p):
        return jnp.sum(p * filled_like(p, 3.0, jnp.float32))

    np.testing.assert_array_equal(jax.grad(loss)(jnp.array([jnp.inf, 1.0])), [3, 3])
    gradient = jax.make_jaxpr(jax.grad(loss))(jnp.ones(2))
    assert str(gradient).count("select_n") == 1  # none of the way back
    hessian = jax.jit(jax.hessian(loss))(jnp.ones(2))
    np.testing.assert_array_equal(hessian, np.zeros((2, 2)))
    batch = jax.vmap(lambda p: filled_like(p, 3, jnp.uint16))(jnp.ones((2, 5)))
    np.testing.assert_array_equal(batch, np.full((2, 5), 3))


@pytest.mark.parametrize("manual", [{"x"}, {"x", "y"}])
def test_inside_shard_map(manual):
    param = jax.device_put(jnp.ones((8, 16)), NamedSharding(mesh_of(), P("x", "y")))
    fill = jax.shard_map(
        lambda p: filled_like(p, 2, jnp.float32),
        mesh=mesh_of(),
        in_specs=P("x"),
        out_specs=P("x"),
        axis_names=manual,
    )
    np.testing.assert_array_equal(jax.jit(fill)(param), np.full((8, 16), 2))


def test_no_memory_besides_the_state():
    param = jnp.ones((256, 256))
    fill = jax.jit(lambda p: filled_like(p, 0, jnp.float32))
    analysis = fill.lower(param).compile().memory_analysis()
    assert analysis.temp_size_in_bytes < 1024


def test_scalars_lie_on_the_mesh_of_all_parameters():
    def place(mesh, spec):
        return jax.device_put(jnp.ones((8, 16)), NamedSharding(mesh, spec))

    both = {"a": place(mesh_of(), P("x")), "b": place(mesh_of(), P())}
    scalar = replicated_beside(both, 7, jnp.uint32)
    assert scalar.sharding == NamedSharding(mesh_of(), P())
    assert (scalar, scalar.dtype, scalar.shape) == (7, jnp.uint32, ())
    elsewhere = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("x",))
    for params in [
        None,
        {},
        {"a": jnp.ones(3)},
        {"a": np.ones(3)},
        {**both, "c": jnp.ones(3)},
        {**both, "c": place(elsewhere, P("x"))},
    ]:
        scalar = replicated_beside(params, 7, jnp.uint32)
        assert scalar.sharding.device_set == {jax.devices()[0]}
        assert not scalar.committed
    # Under a transformation the place is JAX's to choose.
    seeds = jnp.arange(3, dtype=jnp.uint32)
    found = jax.vmap(lambda seed: replicated_beside(both, seed, jnp.uint32))(seeds)
    np.testing.assert_array_equal(found, seeds)
    assert jax.jit(lambda p: replicated_beside(p, 7, jnp.uint32))(both) == 7


# --- state_shardings: state divided over devices, with the numbers of whole state -----

lenient_shardy = pytest.mark.usefixtures("lenient_promotion", "shardy")


def mesh(*sizes, mode=AxisType.Auto):
    names = ("data", "model")[: len(sizes)]
    return jax.make_mesh(sizes, names, axis_types=(mode,) * len(sizes))


def placed(mesh, shapes, specs=None, dtypes=None):
    """Return parameters on a mesh, by default float32 and replicated."""
    rng = np.random.default_rng(0)
    specs, dtypes = specs or {}, dtypes or {}
    return {
        name: jax.device_put(
            jnp.asarray(rng.normal(size=shape), dtypes.get(name, jnp.float32)),
            NamedSharding(mesh, specs.get(name, P())),
        )
        for name, shape in shapes.items()
    }


def bytes_per_device(tree):
    """Return what each device holds of a tree."""
    held = dict.fromkeys(jax.devices(), 0)
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            held[shard.device] += shard.data.nbytes
    return set(held.values())


@lenient_shardy
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", [AxisType.Auto, AxisType.Explicit])
def test_zero_divides_the_state_and_keeps_the_numbers(mode, form):
    # A kernel, a second one that is divided in another dimension, and what cannot be.
    shapes = {"kernel": (64, 24), "wide": (3, 40), "bias": (10,)}
    params = placed(mesh(8, mode=mode), shapes, dtypes={"kernel": jnp.bfloat16})
    tx = ao.stochastic_rounding(ao.adamax(0.1, weight_decay=0.1, state_dtype=form))

    def step(gradients, params, state):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    def run(axis):
        places = jax.tree.map(lambda p: p.sharding, params)
        divided = ao.state_shardings(tx, params, axis)
        state = jax.jit(tx.init, out_shardings=divided)(params)
        held = bytes_per_device(state)
        out = (places, divided)
        program = jax.jit(step, out_shardings=out).lower(params, params, state)
        program = program.compile()
        found = params
        for _ in range(3):
            found, state = program(found, found, state)
        # The state stays where it was put.
        assert bytes_per_device(state) == held
        return held, program.as_text(), (found, state)

    (whole,), text, expected = run(None)
    assert not re.findall(r"all-\w+\(", text)
    (part,), text, found = run("data")
    chex.assert_trees_all_equal(found, expected)

    bytes_each = {None: 8, "bfloat16": 4, "float16": 4, "uint16": 2}[form]
    # What every device holds: scalars, and of reduced state one scale for each leaf.
    everywhere = [x for x in jax.tree.leaves(found[1]) if x.shape in ((), (3,))]
    scalars = sum(x.nbytes for x in everywhere)
    assert whole == bytes_each * (64 * 24 + 3 * 40 + 10) + scalars
    assert part == bytes_each * ((64 * 24 + 3 * 40) // 8 + 10) + scalars
    # Nothing is communicated but the new values of the two divided parameters, and no
    # device makes the noise of others.
    # (XLA on the CPU gathers bfloat16 as float32.)
    collectives = re.findall(r"\w+(\[[\d,]*\])\S* (?:all|collective)-[\w-]+\(", text)
    assert sorted(collectives) == ["[3,40]", "[64,24]"]
    assert "u32[64,24]" not in text


@lenient_shardy
@pytest.mark.parametrize(
    ("shape", "spec", "axis", "expected"),
    [
        ((16, 3), P(), "data", P("data")),
        ((3, 16), P(), "data", P(None, "data")),
        ((3, 5), P(), "data", P()),
        ((), P(), "data", P()),
        ((0, 4), P(), "data", P("data")),
        ((16, 8), P("model"), "data", P(("model", "data"))),
        ((4, 8), P("model"), "data", P("model", "data")),
        ((4, 3), P("model"), "data", P("model")),
        ((16, 8), P(None, "model"), "data", P("data", "model")),
        ((16, 8), P("data", "model"), "data", P("data", "model")),
        ((16, 8), P(None, ("data", "model")), "data", P(None, ("data", "model"))),
        ((4, 8), P(), ("data", "model"), P(None, ("data", "model"))),
        ((16, 8), P("data"), ("data", "model"), P("data")),
        ((16, 8), P(None, "model"), None, P(None, "model")),
        ((16, 8), P(None, None), (), P()),
    ],
)
def test_which_dimension_is_divided(shape, spec, axis, expected):
    param = jax.ShapeDtypeStruct(
        shape, jnp.float32, sharding=NamedSharding(mesh(2, 4), spec)
    )
    tx = ao.scale_by_infinity_norm()
    found = ao.state_shardings(tx, param, axis)
    assert found.mu == found.nu == NamedSharding(mesh(2, 4), expected)


SHAPES = {"w": (16, 8), "b": (8,), "s": ()}
TRUE_FOR_W = {"w": True, "b": False, "s": False}


@lenient_shardy
@pytest.mark.parametrize(
    "tx",
    [
        optax.adam(optax.linear_schedule(1.0, 0.0, 10)),
        optax.adafactor(0.1, min_dim_size_to_factor=4),
        optax.masked(ao.adamax(), TRUE_FOR_W),
        optax.partition(
            {"x": ao.adamax(state_dtype="bfloat16"), "y": optax.sgd(0.1)},
            {"w": "x", "b": "y", "s": "y"},
        ),
        optax.MultiSteps(ao.adamax(), 2),
        optax.apply_if_finite(ao.adamax(), 3),
        optax.inject_hyperparams(ao.adamax)(learning_rate=0.1),
        optax.contrib.split_real_and_imaginary(ao.adamax()),
    ],
    ids="adam adafactor masked partition MultiSteps finite inject split".split(),
)
def test_structure_of_any_optimizer(tx):
    params = placed(mesh(2, 4), SHAPES, {"w": P(None, "model"), "b": P("model")})
    places = ao.state_shardings(tx, params, "data")
    state = jax.jit(tx.init, out_shardings=places)(params)
    chex.assert_trees_all_equal_structs(state, places)
    for leaf, place in zip(*map(jax.tree.leaves, (state, places)), strict=True):
        assert leaf.sharding.is_equivalent_to(place, leaf.ndim)
        if leaf.shape == SHAPES["w"]:
            assert place.spec == P("data", "model")
        if leaf.ndim == 0:
            assert place.spec == P()


@lenient_shardy
def test_real_and_imaginary_parts():
    everywhere = NamedSharding(mesh(8), P())
    params = jax.device_put({"w": jnp.ones((16, 3), jnp.complex64)}, everywhere)
    tx = optax.contrib.split_real_and_imaginary(ao.adamax())
    specs = [x.spec for x in jax.tree.leaves(ao.state_shardings(tx, params, "data"))]
    assert specs == [P("data")] * 4 + [P()]


def refused(params, axis, message):
    with pytest.raises(ValueError, match=message):
        ao.state_shardings(ao.adamax(), params, axis)


@lenient_shardy
def test_refusals_name_the_leaf_and_the_fix():
    params = placed(mesh(2, 4), {"w": (16, 8)})
    refused(
        params, "batch", r"axis='batch' names \['batch'\].*axes \('data', 'model'\)"
    )
    refused(params, ("data", "x"), r"names \['x'\]")
    refused({}, "data", "at least one array, got {}")
    for stray in (jnp.ones(3), np.ones(3), jax.ShapeDtypeStruct((3,), jnp.float32)):
        refused({**params, "x": stray}, "data", r"at \['x'\] must lie on a mesh.*Place")
    refused({**params, "x": placed(mesh(8), {"x": (8,)})["x"]}, "data", r"\['x'\] lies")
    with pytest.raises(ValueError, match=r"\['w'\].*outside jit"):
        jax.jit(lambda p: ao.state_shardings(ao.adamax(), p, "data"))(params)
