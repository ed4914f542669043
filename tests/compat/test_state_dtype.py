"""The class with the group key `state_dtype`."""

import copy
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamax_optax as ao
from tests.compat import inside

STATE_DTYPES = [jnp.bfloat16, jnp.float16, jnp.uint16]
BYTES = {jnp.bfloat16: 4, jnp.float16: 4, jnp.uint16: 2}


def params():
    return {"w": jnp.linspace(-1, 1, 600).reshape(20, 30), "b": jnp.zeros(30)}


def gradients(step):
    key = jax.random.key(step)
    return jax.tree.map(lambda p: 0.5 + jax.random.normal(key, p.shape), params())


def train(optimizer, first, steps):
    for step in range(first, first + steps):
        new = optimizer([gradients(step)])
    return new[0]


def with_state(state_dtype, **hyper):
    group = {"params": params(), "state_dtype": state_dtype}
    return ao.Adamax([group], lr=0.01, **hyper)


def state_bytes(optimizer):
    """Bytes of state that the optimizer holds for each parameter, scalars aside."""
    return sum(x.nbytes for x in inside.arrays(optimizer)) / 630


@pytest.mark.parametrize("state_dtype", STATE_DTYPES)
def test_trains_as_float32_does_in_fewer_bytes(state_dtype):
    small, full = with_state(state_dtype), with_state(None)
    got, expected = train(small, 0, 30), train(full, 0, 30)
    for name in got:
        moved = np.abs(expected[name] - params()[name])
        np.testing.assert_allclose(got[name], expected[name], atol=0.2 * moved.max())
    assert state_bytes(small) == BYTES[state_dtype]
    assert state_bytes(full) == 8


@pytest.mark.parametrize("state_dtype", STATE_DTYPES)
def test_functional_form_has_it_too(state_dtype):
    optimizer = with_state(state_dtype)
    state = optimizer.init([params()])
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(state)}
    assert jnp.dtype(state_dtype) in dtypes


def test_parameters_of_one_shape_have_noise_of_their_own():
    same = {"a": jnp.zeros(500), "b": jnp.zeros(500)}
    optimizer = ao.Adamax([{"params": same, "state_dtype": jnp.uint16}])
    gradient = jax.random.normal(jax.random.key(0), (500,))
    for scale in [1.0, 0.3]:
        ((a, b),) = [
            new.values()
            for new in optimizer([{"a": scale * gradient, "b": scale * gradient}])
        ]
    assert np.any(a != b)


def test_switches_in_the_middle_of_a_run():
    optimizer = with_state(None)
    train(optimizer, 0, 10)
    optimizer.param_groups[0]["state_dtype"] = jnp.uint16
    train(optimizer, 10, 1)
    assert state_bytes(optimizer) == 2
    optimizer.param_groups[0]["state_dtype"] = None
    got = train(optimizer, 11, 10)
    assert state_bytes(optimizer) == 8
    expected = train(with_state(None), 0, 21)
    np.testing.assert_allclose(got["w"], expected["w"], atol=0.02)


def test_refuses_an_unknown_form_and_changes_nothing():
    with pytest.raises(ValueError, match="state_dtype must be"):
        with_state(jnp.int8)
    optimizer = with_state(None)
    optimizer.param_groups[0]["state_dtype"] = "int8"
    with pytest.raises(ValueError, match="state_dtype must be"):
        train(optimizer, 0, 1)
    # No state dict that could not be loaded either.
    with pytest.raises(ValueError, match="state_dtype must be"):
        optimizer.state_dict()
    optimizer.param_groups[0]["state_dtype"] = None
    assert optimizer.state_dict()["state"] == {}


@pytest.mark.parametrize("state_dtype", STATE_DTYPES)
def test_state_dict_is_pytorchs_and_goes_back_in(state_dtype):
    optimizer = with_state(state_dtype)
    train(optimizer, 0, 20)
    saved = optimizer.state_dict()
    pytorch = ["step", "exp_avg", "exp_inf"]
    bound = ["bound"] if state_dtype == jnp.uint16 else []
    assert list(saved["state"][0]) == [*pytorch, "scale", *bound, "key"]
    assert saved["state"][1]["exp_avg"].dtype == jnp.float32
    assert saved["param_groups"][0]["state_dtype"] == state_dtype.__name__

    other = with_state(state_dtype)
    other.load_state_dict(saved)
    again = other.state_dict()
    for number in saved["state"]:
        before, after = saved["state"][number], again["state"][number]
        np.testing.assert_array_equal(before["exp_inf"], after["exp_inf"])
        np.testing.assert_array_equal(before["exp_avg"], after["exp_avg"])
    other([gradients(20)])
    assert state_bytes(other) == BYTES[state_dtype]


def through_json(saved):
    plain = jax.tree.map(lambda x: x.tolist() if isinstance(x, jax.Array) else x, saved)
    return json.loads(json.dumps(plain))


@pytest.mark.parametrize("through", [copy.copy, through_json], ids=["dict", "json"])
@pytest.mark.parametrize("state_dtype", STATE_DTYPES)
def test_state_dict_goes_on_bit_for_bit(state_dtype, through):
    optimizer = with_state(state_dtype)
    now = train(optimizer, 0, 15)
    other = with_state(state_dtype)
    other.param_groups[0]["params"] = optimizer.parameters[0]
    other.load_state_dict(through(optimizer.state_dict()))
    assert state_bytes(other) == BYTES[state_dtype]
    expected, got = train(optimizer, 15, 20), train(other, 15, 20)
    states = [each.state_dict()["state"] for each in (other, optimizer)]
    assert_same_bits([got, states[0]], [expected, states[1]])
    assert np.all(np.asarray(got["w"] != now["w"]))


def assert_same_bits(got, expected):
    def compare(a, b):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()

    jax.tree.map(compare, got, expected)


def test_betas_in_arrays_leave_the_shapes_of_the_moments():
    hyper = {"betas": (np.array([0.9]), jnp.array([0.999])), "state_dtype": "uint16"}
    optimizer = ao.Adamax([{"params": jnp.ones(()), **hyper}])
    optimizer([jnp.ones(())])
    saved = optimizer.state_dict()
    assert (
        saved["state"][0]["exp_avg"].shape == saved["state"][0]["exp_inf"].shape == ()
    )
    other = ao.Adamax([{"params": optimizer.parameters[0], **hyper}])
    other.load_state_dict(saved)
    assert_same_bits(other([jnp.ones(())]), optimizer([jnp.ones(())]))


@pytest.mark.parametrize(
    ("old", "new"),
    [(None, jnp.uint16), (jnp.float16, None), (jnp.uint16, jnp.bfloat16)],
)
def test_state_dict_of_a_switch_that_no_step_has_seen_yet(old, new):
    optimizer = with_state(old)
    train(optimizer, 0, 5)
    optimizer.param_groups[0]["state_dtype"] = new
    other = with_state(old)
    other.param_groups[0]["params"] = optimizer.parameters[0]
    other.load_state_dict(optimizer.state_dict())
    assert_same_bits(train(other, 5, 5), train(optimizer, 5, 5))


@pytest.mark.parametrize("missing", ["scale", "bound", "key"])
def test_state_dict_without_the_numbers_of_its_codes_is_encoded_again(missing):
    optimizer = with_state(jnp.uint16)
    train(optimizer, 0, 10)
    saved = optimizer.state_dict()
    for entry in saved["state"].values():
        del entry[missing]
    other = with_state(jnp.uint16)
    other.load_state_dict(saved)
    again = other.state_dict()["state"]
    np.testing.assert_allclose(
        again[1]["exp_inf"], saved["state"][1]["exp_inf"], rtol=0.12
    )
    train(other, 10, 1)
    assert state_bytes(other) == 2


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        (
            "scale",
            0.25,
            r"scale of params\[0\]\['w'\] must be one number in .* got 0.25",
        ),
        ("scale", np.nan, "one number in"),
        ("scale", np.ones(2), "one number in"),
        (
            "bound",
            -0.1,
            r"bound of params\[0\]\['w'\] must be one number in .* got -0.1",
        ),
        ("bound", np.inf, r"one number in \[0, 1024\]"),
        ("bound", 2000.0, r"one number in \[0, 1024\]"),
        ("bound", True, r"one number in \[0, 1024\], got True"),
        ("bound", "0.1", r"one number in \[0, 1024\], got '0.1'"),
        ("scale", [[1], [2, 3]], "one number in"),
        ("key", np.ones(2), "one whole number"),
        ("scale", None, r"one number in \[0.5, 2\], got None"),
        ("key", 1j, "one whole number of 32 bits, got 1j"),
        ("key", -1, r"key of params\[0\]\['w'\] must be one whole number .* got -1"),
        ("key", 0.5, "one whole number of 32 bits"),
        ("key", 2**33, "one whole number of 32 bits"),
    ],
)
def test_scale_bound_and_key_that_do_not_fit(name, value, match):
    optimizer = with_state(jnp.uint16)
    train(optimizer, 0, 1)
    saved = optimizer.state_dict()
    saved["param_groups"][0]["lr"] = 0.5
    saved["state"][1][name] = value
    with pytest.raises(ValueError, match=match):
        optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] == 0.01


def test_state_dict_that_does_not_name_it_leaves_it_as_it_is():
    # Such as PyTorch's own.
    saved = ao.Adamax([{"params": params()}], lr=0.3)
    train(saved, 0, 2)
    optimizer = with_state(jnp.uint16)
    optimizer.load_state_dict(saved.state_dict())
    assert optimizer.param_groups[0]["state_dtype"] == jnp.uint16
    assert optimizer.param_groups[0]["lr"] == 0.3
    train(optimizer, 2, 1)
    assert state_bytes(optimizer) == 2


@pytest.mark.parametrize("state_dtype", STATE_DTYPES)
def test_pickle_and_copies_go_on_bit_for_bit(state_dtype):
    optimizer = with_state(state_dtype)
    train(optimizer, 0, 10)
    copies = [
        pickle.loads(pickle.dumps(optimizer)),
        copy.deepcopy(optimizer),
        copy.copy(optimizer),
    ]
    expected = train(optimizer, 10, 5)
    for other in copies:
        got = train(other, 10, 5)
        np.testing.assert_array_equal(got["w"], expected["w"])


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("state_dtype", STATE_DTYPES)
def test_complex_parameters_component_wise(state_dtype):
    group = {"params": jnp.zeros(50, complex), "state_dtype": state_dtype}
    optimizer, other = ao.Adamax([group]), ao.Adamax([group])
    (new,) = optimizer([jnp.full(50, 1 - 2j)])
    np.testing.assert_allclose(new, -0.002 + 0.002j, rtol=0.1)
    # And through a state dict.
    other.load_state_dict(optimizer.state_dict())
    other.param_groups[0]["params"] = new
    gradient = jnp.linspace(1 - 2j, -3 + 1j, 50)
    for _ in range(3):
        assert_same_bits(other([gradient]), optimizer([gradient]))


def test_compiles_once(monkeypatch):
    compilations = inside.count_compilations(monkeypatch)
    optimizer = with_state(jnp.uint16)
    train(optimizer, 0, 1)
    compilations()
    train(optimizer, 1, 5)
    optimizer.param_groups[0]["lr"] = 0.5
    train(optimizer, 6, 2)
    assert compilations() == 0


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("state_dtype", STATE_DTYPES)
def test_parts_of_complex_parameters_keep_their_own_codes(state_dtype):
    z, g = jnp.zeros(3, complex), jnp.ones(3, complex)
    optimizer = ao.Adamax([{"params": [z, z]}], lr=0.1)
    for _ in range(10):
        optimizer([[g, 2 * g]])
    optimizer([[1j * g, 1j * g]])  # so that both parts have another m / u
    wide = optimizer.state_dict()["state"]
    optimizer.param_groups[0]["state_dtype"] = state_dtype
    small = optimizer.state_dict()["state"]
    for k in range(2):
        for part in (np.real, np.imag):
            np.testing.assert_allclose(
                part(small[k]["exp_avg"]), part(wide[k]["exp_avg"]), rtol=0.1
            )
    optimizer([[0 * g, 0 * g]])
    others = [pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)]
    loaded = ao.Adamax([{"params": optimizer.parameters[0]}], lr=0.1)
    loaded.load_state_dict(optimizer.state_dict())
    expected = optimizer([[0 * g, None]])
    for other in [*others, loaded]:
        assert_same_bits(other([[0 * g, None]]), expected)


def test_steps_in_pytorch_are_not_undone_by_the_codes_of_before():
    torch = pytest.importorskip("torch")
    ones = jnp.ones(1000)
    optimizer = ao.Adamax([{"params": 0 * ones, "state_dtype": "uint16"}], lr=0.01)
    optimizer([ones])
    weight = torch.nn.Parameter(torch.tensor(np.array(optimizer.parameters[0])))
    theirs = torch.optim.Adamax([weight], lr=0.01)
    theirs.load_state_dict(
        jax.tree.map(
            lambda x: torch.tensor(np.array(x)) if isinstance(x, jax.Array) else x,
            optimizer.state_dict(),
        )
    )
    for _ in range(20):
        weight.grad = torch.ones(1000)
        theirs.step()
    start = jnp.asarray(weight.detach().numpy())
    back = ao.Adamax([{"params": start, "state_dtype": "uint16"}], lr=0.01)
    back.load_state_dict(theirs.state_dict())
    (new,) = back([ones])
    np.testing.assert_allclose((new - start).mean(), -0.01, rtol=0.02)


@pytest.mark.parametrize("look", ["a refused step", "state_dict"])
def test_a_switch_is_undone_before_the_next_step(look):
    params = jnp.array([0.1, 0.37, -2.3])
    optimizer = ao.Adamax([params], lr=0.1)
    optimizer([params])
    optimizer([1.7 * params])
    before = optimizer.state_dict()
    optimizer.param_groups[0]["state_dtype"] = jnp.uint16
    if look == "state_dict":
        assert "bound" in optimizer.state_dict()["state"][0]
    else:
        with pytest.raises(ValueError, match=r"shape \(7,\)"):
            optimizer([jnp.ones(7)])
    optimizer.param_groups[0]["state_dtype"] = None
    after = optimizer.state_dict()
    np.testing.assert_equal(
        jax.tree.map(np.asarray, after["state"]),
        jax.tree.map(np.asarray, before["state"]),
    )
