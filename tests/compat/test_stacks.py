"""Small parameters share arrays, which does not show in the numbers."""

import copy
import itertools
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamax_optax as ao
from tests.compat import inside
from tests.running import FORMS


def tree(count=70, large=True):
    """Return small parameters of two shapes, a scalar, an empty and a large one."""
    params = {
        f"block{i:02}": {"w": jnp.full((3, 4), 0.1 * i), "b": jnp.full(4, 1.0)}
        for i in range(count)
    }
    params |= {"scalar": jnp.array(0.5), "none": jnp.zeros((0, 3))}
    if large:
        params["large"] = jnp.ones((100, inside.SMALL // 50))
    return params


def gradients(params, step):
    leaves, treedef = jax.tree.flatten(params)
    rng = np.random.default_rng(step)
    return treedef.unflatten(
        [rng.normal(size=p.shape).astype(np.float32) for p in leaves]
    )


def test_thousands_of_small_parameters_have_few_arrays():
    params = tree(count=2 * inside.STACK + 6)
    optimizer = ao.Adamax(params)
    sizes = [len(numbers) for numbers in inside.shared(optimizer)]
    # The large one; the scalar and the empty one; the two shapes.
    assert sorted(sizes) == [1, 2, 6, 6, *[inside.STACK] * 4]
    assert len(inside.arrays(optimizer)) == 2 * len(sizes)
    assert sum(x.size for x in inside.arrays(optimizer)) == 2 * sum(
        p.size for p in jax.tree.leaves(params)
    )


SHAPES = [(3, 4), (5,), (), (0, 3), (2, 2, 2), (inside.JOINED + 1,)]


def test_other_small_parameters_are_joined():
    groups = [{"params": list(map(jnp.ones, SHAPES))}, {"params": jnp.ones(7)}]
    groups += [{"params": [jnp.ones(9, jnp.bfloat16), jnp.ones(8, jnp.complex64)]}]
    optimizer = ao.Adamax(groups)
    assert inside.shared(optimizer) == [(0, 1, 2, 3, 4, 6), (5,), (7,), (8,)]
    groups = [{"params": list(map(jnp.ones, SHAPES[:3])), "state_dtype": "uint16"}]
    assert inside.shared(ao.Adamax(groups)) == [(0,), (1,), (2,)]
    many = [jnp.ones(n) for n in range(inside.STACK + 3)]
    assert list(map(len, inside.shared(ao.Adamax(many)))) == [inside.STACK, 3]


@pytest.mark.parametrize("donate", [False, True])
@pytest.mark.parametrize("rates", [[0.01] * 6, [0.01, 0.1, 0.02, 0.03, 0.0, 0.05]])
def test_joined_parameters_are_independent(donate, rates):
    options = dict(weight_decay=0.1, donate=donate)
    joined = ao.Adamax(
        [
            {"params": [jnp.ones(shape) for shape, _ in group], "lr": lr}
            for lr, group in itertools.groupby(
                zip(SHAPES, rates, strict=True), key=lambda pair: pair[1]
            )
        ],
        **options,
    )
    apart = [
        ao.Adamax(jnp.ones(shape), lr, **options)
        for shape, lr in zip(SHAPES, rates, strict=True)
    ]
    rng = np.random.default_rng(0)
    for step in range(8):
        given = [
            jnp.asarray(rng.normal(size=shape), jnp.float32)
            if step % 4 == 0 or rng.random() < 0.5
            else None
            for shape in SHAPES
        ]
        before = list(map(np.asarray, jax.tree.leaves(joined.parameters)))
        after = jax.tree.leaves(joined(given))
        for old, new, gradient, optimizer in zip(
            before, after, given, apart, strict=True
        ):
            if gradient is None:
                np.testing.assert_array_equal(new, old)
            else:
                np.testing.assert_allclose(new, optimizer(gradient), rtol=1e-6)
    # And so are their entries, which another optimizer loads into other arrays.
    saved = joined.state_dict()
    for k, optimizer in enumerate(apart):
        own = optimizer.state_dict()["state"][0]
        assert own["step"] == saved["state"][k]["step"]
        chex.assert_trees_all_close(own, saved["state"][k], rtol=1e-6)
    groups = [{"params": [jnp.ones(shape)]} for shape in SHAPES]
    alone = ao.Adamax(groups, **options)
    state = saved["state"].values()
    alone.load_state_dict({**alone.state_dict(), "state": dict(enumerate(state))})
    for k, entry in alone.state_dict()["state"].items():
        chex.assert_trees_all_equal(entry, saved["state"][k])


@pytest.mark.parametrize("state_dtype", ["bfloat16", "uint16"])
@pytest.mark.parametrize("lazy_rows", [False, True])
@pytest.mark.parametrize("shapes", [[(3,), (5,)], [(0,), (0, 3)]])
def test_reduced_groups_after_joined_parameters(state_dtype, lazy_rows, shapes):
    reduced = {
        "params": [jnp.ones(4), jnp.ones((2, 2))],
        "state_dtype": state_dtype,
        "lazy_rows": lazy_rows,
    }
    plain = {"params": list(map(jnp.ones, shapes))}
    both = ao.Adamax([plain, reduced], lr=0.1)
    apart = [ao.Adamax([plain], lr=0.1), ao.Adamax([reduced], lr=0.1)]
    key = both.state_dict()["state"].get(2, {}).get("key")
    for step in range(5):
        gradients = [
            [jnp.full(x.shape, 1.0 + step) for x in group["params"]]
            for group in (plain, reduced)
        ]
        both(gradients)
        for optimizer, own in zip(apart, gradients, strict=True):
            optimizer([own])
    saved = both.state_dict()["state"]
    for k, entry in enumerate(apart[0].state_dict()["state"].values()):
        chex.assert_trees_all_close(saved[k], entry, rtol=1e-6)
    for k, entry in enumerate(apart[1].state_dict()["state"].values(), start=2):
        assert saved[k]["key"] not in (0, key)
        for name in ("scale", "bound"):
            if name in entry:
                np.testing.assert_allclose(saved[k][name], entry[name], rtol=1e-2)
        np.testing.assert_allclose(saved[k]["exp_avg"], entry["exp_avg"], rtol=0.2)
        np.testing.assert_allclose(saved[k]["exp_inf"], entry["exp_inf"], rtol=0.25)


def test_parameters_are_stacked_across_groups():
    groups = [{"params": jnp.ones(4), "lr": 0.1 * i} for i in range(5)]
    optimizer = ao.Adamax(groups)
    assert inside.shared(optimizer) == [(0, 1, 2, 3, 4)]
    new = optimizer([jnp.ones(4)] * 5)
    for i, param in enumerate(new):
        np.testing.assert_allclose(param, 1 - 0.1 * i, rtol=1e-6)


def test_numbers_are_the_functional_forms():
    params = tree(inside.STACK + 2)
    optimizer = ao.Adamax(params, lr=0.01, weight_decay=0.1)
    tx = ao.adamax(0.01, weight_decay=0.1)
    update = jax.jit(tx.update)
    state = tx.init(params)
    for step in range(5):
        new = optimizer(gradients(params, step))
        updates, state = update(gradients(params, step), state, params)
        params = jax.tree.map(jnp.add, params, updates)
        chex.assert_trees_all_close(new, params, rtol=1e-6, atol=1e-7)
    # PyTorch's order, in which the state dict has them: that of the leaves.
    saved = optimizer.state_dict()["state"]
    mu, nu = (jax.tree.leaves(getattr(state[2], name)) for name in ("mu", "nu"))
    for k, entry in saved.items():
        np.testing.assert_allclose(entry["exp_avg"], mu[k], rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(entry["exp_inf"], nu[k], rtol=1e-6)


@pytest.mark.parametrize("state_dtype", FORMS)
def test_steps_without_some_gradients(state_dtype):
    """A parameter's numbers do not depend on who steps beside it (float32), and
    those without a gradient stay as they are in every form."""
    params = tree(count=3, large=False)
    optimizer = ao.Adamax([{"params": params, "state_dtype": state_dtype}], lr=0.1)
    twin = ao.Adamax(params["block01"], lr=0.1)
    for step in range(8):
        grads = gradients(params, step)
        if step % 3 == 1:
            grads["block00"] = grads["scalar"] = None
        if step % 4 == 2:
            grads["block01"]["w"] = None
        before = optimizer.parameters[0]
        (after,) = optimizer([grads])
        expected = twin(grads["block01"])
        for name, old, new in [
            ("block00", before["block00"]["w"], after["block00"]["w"]),
            ("scalar", before["scalar"], after["scalar"]),
        ]:
            assert (grads[name] is None) == np.array_equal(old, new)
        if state_dtype is None:
            chex.assert_trees_all_close(
                after["block01"], expected, rtol=1e-6, atol=1e-7
            )
    counts = [int(e["step"]) for e in optimizer.state_dict()["state"].values()]
    names = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    got = {
        jax.tree_util.keystr(path, simple=True, separator="/"): count
        # The empty parameter steps too.
        for path, count in zip(names, counts, strict=True)
    }
    assert got["block00/w"] == got["scalar"] == 5
    assert got["block01/w"] == 6
    assert got["block01/b"] == got["block02/w"] == got["none"] == 8


@pytest.mark.parametrize("state_dtype", FORMS)
@pytest.mark.parametrize(
    "way", ["pickle", pytest.param("deepcopy", marks=pytest.mark.slow), "state_dict"]
)
def test_goes_on_bit_for_bit(way, state_dtype):
    # Also where a part of a stack has stepped alone.
    params = tree(count=3, large=True)
    group = {"params": params, "state_dtype": state_dtype}
    optimizer = ao.Adamax([group], lr=0.1, betas=(0.9, 0.99))
    optimizer([gradients(params, 0)])
    optimizer([{**gradients(params, 1), "block00": None}])
    optimizer([{**gradients(params, 2), "block01": None, "large": None}])
    if way == "state_dict":
        twin = ao.Adamax(
            [{"params": optimizer.parameters[0], "state_dtype": state_dtype}]
        )
        twin.load_state_dict(optimizer.state_dict())
    else:
        twin = (
            copy.deepcopy(optimizer)
            if way == "deepcopy"
            else pickle.loads(pickle.dumps(optimizer))
        )
    for step in range(3, 8):
        chex.assert_trees_all_equal(
            optimizer([gradients(params, step)]), twin([gradients(params, step)])
        )


def test_stacked_parameters_have_noise_of_their_own():
    params = [jnp.zeros(500), jnp.zeros(500)]
    optimizer = ao.Adamax([{"params": params, "state_dtype": jnp.uint16}])
    gradient = jax.random.normal(jax.random.key(0), (500,))
    for _ in range(3):
        first, second = optimizer([[gradient, gradient]])[0]
    assert inside.shared(optimizer) == [(0, 1)]
    assert not np.array_equal(first, second)


def test_a_loaded_state_needs_no_new_compilation(monkeypatch):
    compilations = inside.count_compilations(monkeypatch)
    params = tree(count=3, large=False)
    optimizer = ao.Adamax(params)
    optimizer(params)
    optimizer(params)
    compilations()
    twin = ao.Adamax(optimizer.parameters)
    twin.load_state_dict(optimizer.state_dict())
    twin(params)
    twin(params)
    assert compilations() == 0


@pytest.mark.parametrize("state_dtype", FORMS[1:])
def test_wide_vectors_change_no_bit(state_dtype, monkeypatch):
    def stepped():
        params = jax.tree.map(jnp.copy, tree(count=2))
        group = {"params": params, "state_dtype": state_dtype, "weight_decay": 0.1}
        optimizer = ao.Adamax([group], lr=0.1, donate=True)
        for step in range(4):
            optimizer([gradients(params, step)])
        return optimizer._program, optimizer.parameters, optimizer.state_dict()

    (wide, *expected), elsewhere = stepped(), "adamax_optax.compat._optimizer.on_cpu"
    monkeypatch.setattr(elsewhere, lambda _: False)
    narrow, *results = stepped()
    assert wide is not narrow
    chex.assert_trees_all_equal(results, expected)
