"""New state: with the sharding of its parameter, and nothing else of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from adamax_optax._placement import filled_like, scalar_beside

# All of one shape, for which XLA could make one constant.
SPECS = [P("x"), P(None, "y"), P("x", "y"), P("y", "x"), P(("x", "y")), P()]


def mesh(*types):
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
    places = [NamedSharding(mesh(mode, mode), spec) for spec in SPECS]
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
    param = jax.device_put(jnp.ones((8, 16)), NamedSharding(mesh(), P("x", "y")))
    fill = jax.shard_map(
        lambda p: filled_like(p, 2, jnp.float32),
        mesh=mesh(),
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

    both = {"a": place(mesh(), P("x")), "b": place(mesh(), P())}
    scalar = scalar_beside(both, 7, jnp.uint32)
    assert scalar.sharding == NamedSharding(mesh(), P())
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
        scalar = scalar_beside(params, 7, jnp.uint32)
        assert scalar.sharding.device_set == {jax.devices()[0]}
        assert not scalar.committed
    # Under a transformation the place is JAX's to choose.
    seeds = jnp.arange(3, dtype=jnp.uint32)
    found = jax.vmap(lambda seed: scalar_beside(both, seed, jnp.uint32))(seeds)
    np.testing.assert_array_equal(found, seeds)
    assert jax.jit(lambda p: scalar_beside(p, 7, jnp.uint32))(both) == 7
