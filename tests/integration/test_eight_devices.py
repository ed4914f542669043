"""The whole optimizer on eight devices: no communication, and one device's numbers."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import adamax_optax as ao
from tests import running

FORMS = [None, "bfloat16", "float16", "uint16"]
MODES = [AxisType.Auto, AxisType.Explicit]
COLLECTIVES = [
    *("all-gather", "all-reduce", "all-to-all", "collective-broadcast"),
    *("collective-permute", "ragged-all-to-all", "reduce-scatter"),
]

# Two matrices of one shape, as networks have them, and smaller parameters.
SHAPES = {"up": (16, 24), "down": (16, 24), "bias": (24,), "scale": ()}
DTYPES = {"bias": jnp.float32}  # of the others: bfloat16
LAYOUTS = {
    "data parallel": ((8,), ("data",), {}),
    "fully sharded": (
        (2, 4),
        ("data", "model"),
        {"up": P("data", "model"), "down": P(("data", "model")), "bias": P("data")},
    ),
    "tensor parallel": (
        (2, 4),
        ("data", "model"),
        {"up": P(None, "model"), "down": P("model"), "bias": P("model")},
    ),
}

pytestmark = pytest.mark.usefixtures("lenient_promotion", "shardy")


def shardings(layout, mode):
    """Return the sharding of each parameter."""
    sizes, names, specs = LAYOUTS[layout]
    mesh = jax.make_mesh(sizes, names, axis_types=(mode,) * len(names))
    return {name: NamedSharding(mesh, specs.get(name, P())) for name in SHAPES}


@functools.cache
def arrays():
    """Return parameters and the gradients of three steps, on one device."""
    rng = np.random.default_rng(0)

    def draw():
        return {
            name: jnp.asarray(rng.normal(size=shape), DTYPES.get(name, jnp.bfloat16))
            for name, shape in SHAPES.items()
        }

    return draw(), [draw() for _ in range(3)]


@functools.cache
def optimizer(form):
    """Return an optimizer with everything that draws on noise, and its step."""
    tx = ao.stochastic_rounding(ao.adamax(0.05, weight_decay=0.1, state_dtype=form), 1)

    def step(gradients, params, state):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return tx, jax.jit(step)


@functools.cache
def on_one_device(form):
    """Return parameters and state after the three steps."""
    tx, step = optimizer(form)
    params, gradients = arrays()
    state = tx.init(params)
    for g in gradients:
        params, state = step(g, params, state)
    return params, state


def check_places(tx, params, state):
    """Assert that moments lie as their parameters do, and all else everywhere."""
    devices = params["up"].sharding.device_set

    def beside(x, param):
        assert x.sharding.is_equivalent_to(param.sharding, x.ndim)

    def everywhere(x):
        assert x.sharding.is_fully_replicated
        assert x.sharding.device_set == devices

    optax.tree_utils.tree_map_params(
        tx, beside, state, params, transform_non_params=everywhere
    )


def check_same_places(found, places):
    """Assert that arrays lie where they should."""
    for name, place in places.items():
        assert found[name].sharding.is_equivalent_to(place, found[name].ndim), name


@pytest.mark.parametrize("form", running.FORMS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "layout",
    [
        pytest.param("data parallel", marks=pytest.mark.slow),
        "fully sharded",
        pytest.param("tensor parallel", marks=pytest.mark.slow),
    ],
)
def test_no_communication_and_the_same_numbers(layout, mode, form):
    places = shardings(layout, mode)
    tx, step = optimizer(form)
    params, gradients = jax.device_put(arrays(), (places, [places] * 3))
    state = tx.init(params)
    check_places(tx, params, state)
    check_places(tx, params, jax.jit(tx.init)(params))

    program = step.lower(gradients[0], params, state).compile()
    text = program.as_text()
    assert not [name for name in COLLECTIVES if name in text]
    # The noise too is made where it is needed: nothing has the full size.
    assert ("[16,24]" in text) == (layout == "data parallel")

    for g in gradients:
        # A compiled program refuses arguments that lie elsewhere.
        params, state = program(g, params, state)
    check_places(tx, params, state)
    check_same_places(params, places)
    chex.assert_trees_all_equal((params, state), on_one_device(form))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "donate"), [(AxisType.Auto, False), (AxisType.Explicit, True)]
)
def test_class_with_a_group_of_each_form(mode, donate):
    names = ["bias", "up"]  # few, since the class compiles a program for each
    places = shardings("tensor parallel", mode)

    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: "backend_compile" in event and compiled.append(event)
    )

    def train(params, gradients):
        groups = [
            {"params": {n: jnp.copy(params[n]) for n in names}, "state_dtype": form}
            for form in FORMS
        ]
        optimizer = ao.Adamax(groups, lr=0.05, donate=donate)
        for g in gradients:
            before = len(compiled)
            optimizer([{name: g[name] for name in names}] * len(FORMS))
            # The first step has left everything where the second one finds it.
            assert g is gradients[0] or len(compiled) == before
        return optimizer

    one = train(*arrays())
    many = train(*jax.device_put(arrays(), (places, [places] * 3)))
    # Hyperparameters are not constants here, and how products and sums are contracted
    # depends on the size of the part: to the last bit of float32.
    chex.assert_trees_all_close(many.parameters, one.parameters, rtol=1e-6)
    for params in many.parameters:
        check_same_places(params, {name: places[name] for name in names})

    # A state dict has the moments where they were, and loading puts them back there.
    saved = many.state_dict()
    many.load_state_dict({**saved, "state": jax.tree.map(np.asarray, saved["state"])})
    for state in (saved["state"], many.state_dict()["state"]):
        for name, entry in zip(names * len(FORMS), state.values(), strict=True):
            for moment in ("exp_avg", "exp_inf"):
                check_same_places({name: entry[moment]}, {name: places[name]})


def test_cast_state_leaves_it_where_it_is():
    place = shardings("fully sharded", AxisType.Explicit)["up"]
    params = {"up": jax.device_put(arrays()[0]["up"], place)}
    state = ao.adamax().init(params)
    for form in ("uint16", None):
        state = ao.interop.cast_state(state, form)
        check_places(ao.adamax(state_dtype=form), params, state)
