"""The class with the group key `lazy_rows`."""

import copy
import json
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import adamax_optax as ao
from adamax_optax._rounding import leaf_key
from tests.compat import inside
from tests.compat.test_placement import COLLECTIVES
from tests.running import FORMS
from tests.test_lazy_rows import draw

LR, DECAY = 2.0**-6, 0.125


def start(form, lazy=True, **more):
    """Return an optimizer of two alike matrices, a vector and a number."""
    params, _, _ = draw()
    tree = {"a": params, "b": -params, "v": params[:, 0], "s": params[0, 0]}
    group = {"params": jax.tree.map(jnp.asarray, tree), "state_dtype": form}
    group |= {} if lazy is None else {"lazy_rows": lazy}
    return ao.Adamax([group], lr=LR, weight_decay=DECAY, **more)


def gradients_at(step):
    _, gradients, _ = draw()
    g = jnp.asarray(gradients[step], jnp.float32)
    return {"a": g, "b": g[::-1], "v": g[:, 1], "s": g[4, 0]}


def train(optimizer, first, steps):
    for step in range(first, first + steps):
        (new,) = optimizer([gradients_at(step)])
    return new


def assert_same_bits(got, expected):
    def compare(a, b):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()

    jax.tree.map(compare, got, expected)


@pytest.mark.parametrize("form", FORMS)
def test_it_is_the_functional_form(form):
    optimizer = start(form)
    tx = ao.lazy_rows(ao.adamax(LR, weight_decay=DECAY, state_dtype=form))
    update = jax.jit(tx.update)
    params = {name: [p] for name, p in optimizer.parameters[0].items()}
    states = {}
    for k, (name, p) in enumerate(sorted(params.items())):
        states[name] = tx.init(p)
        if form is not None:  # the noise of parameter k
            key = leaf_key(jnp.uint32(0), k)
            states[name] = optax.tree_utils.tree_set(states[name], key=key)
    for step in range(10):
        (new,) = optimizer([gradients_at(step)])
        for name, g in gradients_at(step).items():
            updates, states[name] = update([g], states[name], params[name])
            params[name] = optax.apply_updates(params[name], updates)
            np.testing.assert_allclose(new[name], params[name][0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("form", FORMS)
def test_the_numbers_of_tensorflow(form):
    # As in `tests/test_lazy_rows.py`; it adds 1e-7 to u.
    group = {"params": jnp.ones((4, 1)), "lazy_rows": True, "state_dtype": form}
    optimizer = ao.Adamax([group], lr=0.1, eps=0.0)
    for g in ([0.5, 0, 0.5, 0], [0, 0, 1.5, 0], [2.5, 0, 2.5, 0]):
        (p,) = optimizer([jnp.array(g)[:, None]])
    atol = {None: 5e-5, "bfloat16": 0.002, "float16": 0.002, "uint16": 0.02}[form]
    np.testing.assert_allclose(p[:, 0], [0.8565, 1, 0.7688, 1], atol=atol)


@pytest.mark.parametrize("donate", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_a_row_that_waits_keeps_every_bit(form, donate):
    optimizer = start(form, donate=donate)
    before = train(optimizer, 0, 5)
    before = jax.tree.map(np.array, before)
    names = ["a", "b", "s", "v"]
    for step in range(5, 15):
        g = gradients_at(step)
        saved = optimizer.state_dict()["state"]
        (new,) = optimizer([{**g, "b": None} if step % 3 == 0 else g])
        after = optimizer.state_dict()["state"]
        for k, name in enumerate(names):
            rows = range(1, g[name].ndim)
            moves = np.any(g[name] != 0, axis=tuple(rows))
            moves &= name != "b" or step % 3 != 0
            pairs = [(before[name], new[name])]
            pairs += [(saved[k][m], after[k][m]) for m in ("exp_avg", "exp_inf")]
            for old, now in pairs:
                same = np.asarray(old == now)
                np.testing.assert_array_equal(same[~moves], True)
                assert not same[moves].all() or not moves.any()
        before = jax.tree.map(np.array, new)
    assert int(after[0]["step"]) == 15 and int(after[1]["step"]) == 12


def test_other_groups_are_dense():
    params, gradients, stepping = draw()
    optimizer = ao.Adamax(
        [{"params": params, "lazy_rows": True}, {"params": params.copy()}], lr=LR
    )
    dense = ao.Adamax([{"params": params, "lazy_rows": False}], lr=LR)
    for g, moves in zip(gradients[:9], stepping, strict=False):
        old, _ = optimizer.parameters
        new, other = optimizer([g, g])
        np.testing.assert_array_equal(np.any(new != old, axis=1), moves)
        np.testing.assert_allclose(other, dense([g])[0], rtol=1e-6)


def through_json(saved):
    plain = jax.tree.map(lambda x: x.tolist() if isinstance(x, jax.Array) else x, saved)
    return json.loads(json.dumps(plain))


def by_state_dict(optimizer, through=copy.copy):
    other = start(optimizer.param_groups[0]["state_dtype"], lazy=None)
    other.param_groups[0]["params"] = optimizer.parameters[0]
    other.load_state_dict(through(optimizer.state_dict()))
    return other


WAYS = {
    "state_dict": by_state_dict,
    "json": lambda optimizer: by_state_dict(optimizer, through_json),
    "pickle": lambda optimizer: pickle.loads(pickle.dumps(optimizer)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_run_resumes_bit_for_bit(form):
    optimizer = start(form)
    train(optimizer, 0, 7)
    others = {name: way(optimizer) for name, way in WAYS.items()}
    for other in others.values():
        assert_same_bits(inside.state(other), inside.state(optimizer))
    expected = train(optimizer, 7, 5)
    for other in others.values():
        assert_same_bits(train(other, 7, 5), expected)
        assert_same_bits(inside.state(other), inside.state(optimizer))


@pytest.mark.parametrize("form", FORMS)
def test_pytorch_takes_the_state_dict(form):
    torch = pytest.importorskip("torch")
    optimizer = start(form)
    train(optimizer, 0, 3)
    saved = jax.tree.map(
        lambda x: torch.tensor(np.array(x)) if isinstance(x, jax.Array) else x,
        optimizer.state_dict(),
    )
    weights = [torch.zeros(p.shape) for p in optimizer.parameters[0].values()]
    theirs = torch.optim.Adamax([weights[0], weights[1], weights[3], weights[2]])
    theirs.load_state_dict(saved)
    other = start(form)
    other.param_groups[0]["params"] = optimizer.parameters[0]
    other.load_state_dict(theirs.state_dict())
    assert_same_bits(train(other, 3, 2), train(optimizer, 3, 2))


@pytest.mark.parametrize("form", FORMS)
def test_the_key_takes_effect_at_the_next_step(form, monkeypatch):
    optimizer, lazy = start(form, lazy=None), start(form)
    zeros = jax.tree.map(jnp.zeros_like, gradients_at(0))
    train(optimizer, 0, 5)
    before = optimizer.state_dict()["state"]
    optimizer.param_groups[0]["lazy_rows"] = True
    (old,), (new,) = optimizer.parameters, optimizer([zeros])
    assert_same_bits(new, old)
    after = optimizer.state_dict()["state"]
    for k in before:
        for name in ("exp_avg", "exp_inf"):
            assert_same_bits(after[k][name], before[k][name])
    assert len(inside.arrays(optimizer)) == len(inside.arrays(lazy))
    compilations = inside.count_compilations(monkeypatch)
    train(optimizer, 6, 3)
    assert compilations() == 0
    rows = optimizer.state_dict()["state"]
    optimizer.param_groups[0]["lazy_rows"] = False
    dense = optimizer.state_dict()["state"]
    for k in before:
        np.testing.assert_allclose(
            dense[k]["exp_inf"], rows[k]["exp_inf"], rtol=0.13, atol=1e-8
        )
    (old,), (new,) = optimizer.parameters, optimizer([zeros])
    assert np.all(new["a"][1:] != old["a"][1:])
    # And both at once.
    optimizer.param_groups[0].update(lazy_rows=True, state_dtype="uint16")
    optimizer([zeros])
    assert len(inside.arrays(optimizer)) == len(inside.arrays(start("uint16")))
    optimizer.param_groups[0].update(lazy_rows=False, state_dtype=None)
    train(optimizer, 9, 1)
    assert len(inside.arrays(optimizer)) == len(inside.arrays(start(None, lazy=None)))


def test_state_dicts_without_the_key_leave_it_as_it_is():
    dense = start("uint16", lazy=None)
    train(dense, 0, 3)
    optimizer = start("uint16")
    optimizer.load_state_dict(dense.state_dict())
    assert optimizer.param_groups[0]["lazy_rows"] is True
    # The other way round, the key comes along, and may be taken out again.
    saved = optimizer.state_dict()
    saved["param_groups"][0]["lazy_rows"] = False
    dense.load_state_dict(saved)
    moments = [x.state_dict()["state"][0] for x in (dense, optimizer)]
    for name in ("exp_avg", "exp_inf"):
        np.testing.assert_allclose(*[m[name] for m in moments], rtol=0.13, atol=1e-6)


@pytest.mark.parametrize("value", [None, 1, "yes", np.ones(2, bool)])
def test_other_values_are_refused(value):
    match = re.escape(f"lazy_rows must be True or False, got {value!r}")
    with pytest.raises(ValueError, match=match):
        ao.Adamax([{"params": jnp.ones(2), "lazy_rows": value}])
    optimizer = start(None, lazy=False)
    before = train(optimizer, 0, 1)
    optimizer.param_groups[0]["lazy_rows"] = value
    with pytest.raises(ValueError, match=match):
        train(optimizer, 1, 1)
    optimizer.param_groups[0]["lazy_rows"] = True
    assert_same_bits(optimizer.parameters[0], before)
    assert int(optimizer.state_dict()["state"][0]["step"]) == 1


def test_numbers_of_rows_that_do_not_fit():
    optimizer = start("uint16")
    train(optimizer, 0, 1)
    saved = optimizer.state_dict()
    saved["state"][0]["scale"] = [1.0] * 7
    with pytest.raises(ValueError, match="with lazy_rows, one for each of 8 rows"):
        optimizer.load_state_dict(saved)


@pytest.mark.parametrize("form", FORMS)
def test_variables_of_nnx(form):
    nnx = pytest.importorskip("flax.nnx")
    embedding = nnx.Embed(8, 6, rngs=nnx.Rngs(0))
    group = {"params": embedding, "lazy_rows": True, "state_dtype": form}
    optimizer = ao.Adamax([group], lr=LR, weight_decay=DECAY)
    for _ in range(2):
        before = np.array(embedding.embedding[...])

        def loss_fn(embedding):
            return jnp.sum(embedding(jnp.array([1, 4])) ** 2)

        optimizer([nnx.grad(loss_fn)(embedding)])
        moved = np.any(embedding.embedding[...] != before, axis=1)
        assert np.flatnonzero(moved).tolist() == [1, 4]


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("form", FORMS)
def test_a_complex_row_is_one_row(form):
    z = jnp.full((3, 2), 1 + 1j, jnp.complex64)
    group = {"params": z, "lazy_rows": True, "state_dtype": form}
    optimizer = ao.Adamax([group], lr=0.1)
    optimizer([z])
    before = optimizer.parameters[0]
    (new,) = optimizer([z * jnp.array([[0], [0], [1j]]) + jnp.array([[0], [1j], [0]])])
    assert_same_bits(new[0], before[0])
    # The mean moves the real part of row 1 too, though only the other has a gradient.
    assert np.all(np.real(new[1]) != np.real(before[1]))
    other = ao.Adamax([{"params": new, "state_dtype": form}], lr=0.1)
    other.load_state_dict(optimizer.state_dict())
    assert_same_bits(other([z]), optimizer([z]))


@pytest.mark.parametrize("form", FORMS)
def test_as_a_transformation(form):
    params, gradients, stepping = draw(steps=2)
    both = [jnp.asarray(params), jnp.asarray(-params)]
    group = {"params": both[0], "lazy_rows": True, "state_dtype": form}
    optimizer = ao.Adamax([group, {"params": both[1]}])
    state = optimizer.init(both)
    for g in gradients:
        updates, state = optimizer.update([jnp.asarray(g, jnp.float32)] * 2, state)
    moved = [np.any(u != 0, axis=1) for u in updates]
    np.testing.assert_array_equal(moved[0], stepping[1])
    np.testing.assert_array_equal(moved[1], stepping.any(axis=0))


@pytest.mark.usefixtures("shardy")
@pytest.mark.parametrize("mode", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("form", FORMS)
def test_rows_on_several_devices(form, mode, monkeypatch):
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(mode,))
    places = {"a": P("rows"), "b": P("rows", None), "v": P("rows"), "s": P()}
    places = {name: NamedSharding(mesh, spec) for name, spec in places.items()}
    alone, optimizer = start(form), start(form)
    optimizer.param_groups[0]["params"] = jax.device_put(
        optimizer.parameters[0], places
    )
    gradients = [jax.device_put(gradients_at(step), places) for step in range(4)]
    optimizer([gradients[0]])
    program = inside.lowered(optimizer, jax.tree.leaves(gradients[0]))
    assert not re.findall(COLLECTIVES, program.compile().as_text())
    for x in inside.arrays(optimizer):  # the state, with the scales of the rows
        rows = places["a"] if x.shape[:1] == (8,) else places["s"]
        assert x.sharding.is_equivalent_to(rows, x.ndim)
    compilations = inside.count_compilations(monkeypatch)
    for g in gradients[1:]:
        (new,) = optimizer([g])
    assert compilations() == 0
    expected = train(alone, 0, 4)
    for name, place in places.items():
        assert new[name].sharding.is_equivalent_to(place, new[name].ndim)
        np.testing.assert_allclose(new[name], expected[name], rtol=2e-6)
    other = by_state_dict(optimizer)
    assert_same_bits(inside.state(other), inside.state(optimizer))
    assert_same_bits(other([gradients[0]]), optimizer([gradients[0]]))
