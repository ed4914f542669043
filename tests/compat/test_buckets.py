"""Small parameters share arrays of moments, and nobody can tell from the numbers."""

import copy
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

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
    optimizer = ao.Adamax(tree())
    assert (
        len(inside.shared(optimizer)) == 6
    )  # two of each shape, one of the rest, the large
    assert len(inside.arrays(optimizer)) == 2 * 6
    assert sum(x.size for x in inside.arrays(optimizer)) == 2 * sum(
        p.size for p in jax.tree.leaves(tree())
    )
    sizes = [len(piece) for piece in inside.shared(optimizer)]
    assert sorted(sizes) == [1, 2 * (70 % inside.STACK) + 2, 32, 32, 32, 32]


def test_no_shared_array_is_larger_than_a_buffer():
    size = inside.SMALL - 1
    optimizer = ao.Adamax([jnp.zeros(size - i % 2 * i) for i in range(64)])
    assert max(x.size for x in inside.arrays(optimizer)) <= inside.BUFFER
    together = sorted(k for piece in inside.shared(optimizer) for k in piece)
    assert together == list(range(64))


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
            chex.assert_trees_all_close(after["block01"], expected, rtol=1e-6)
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


def test_what_has_a_gradient_at_some_steps_only_is_compiled_once():
    params = {"a": jnp.ones(3), "b": jnp.ones(5), "c": jnp.ones(5)}
    optimizer = ao.Adamax(params)
    grads = [params, {**params, "a": None}, {**params, "b": None}]
    for gradient in 2 * grads:
        optimizer(gradient)
    compiled = inside.compiled_steps()
    for gradient in [*grads, *reversed(grads)]:
        optimizer(gradient)
    assert inside.compiled_steps() == compiled


@pytest.mark.parametrize("state_dtype", FORMS)
@pytest.mark.parametrize(
    "way", ["pickle", pytest.param("deepcopy", marks=pytest.mark.slow), "state_dict"]
)
def test_goes_on_bit_for_bit(way, state_dtype):
    # Also where a part of a shared array has stepped alone, with noise of its own.
    params = tree(count=3, large=True)
    group = {"params": params, "state_dtype": state_dtype}
    optimizer = ao.Adamax([group], lr=0.1, betas=(0.9, 0.99))
    optimizer([gradients(params, 0)])
    optimizer([{**gradients(params, 1), "block00": None}])
    if state_dtype is not None:
        # Of equal count, but apart. In float32 what was loaded would be united, and
        # compiled to other roundings of the last bit.
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


def test_halves_of_one_array_have_noise_of_their_own():
    params = [jnp.zeros(500), jnp.zeros(500)]
    optimizer = ao.Adamax([{"params": params, "state_dtype": jnp.uint16}])
    gradient = jax.random.normal(jax.random.key(0), (500,))
    optimizer([[gradient, gradient]])
    optimizer([[None, gradient]])
    optimizer([[gradient, None]])
    one, two = inside.moments(optimizer)
    assert one.key != two.key
    (a, b) = optimizer.state_dict()["state"].values()
    assert a["step"] == b["step"]


def test_sharded_parameters_keep_arrays_of_their_own():
    mesh = jax.make_mesh((8,), ("x",))
    by_rows = NamedSharding(mesh, PartitionSpec("x"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    params = [
        *(jax.device_put(jnp.ones((n, 4)), by_rows) for n in (16, 8)),
        *(jax.device_put(jnp.ones(n), everywhere) for n in (3, 4)),
    ]
    optimizer = ao.Adamax(params, lr=0.5)
    assert inside.shared(optimizer) == [(0,), (1,), (2, 3)]
    new = optimizer(params)
    for before, after in zip(params, new, strict=True):
        assert after.sharding.is_equivalent_to(before.sharding, after.ndim)
    chex.assert_trees_all_close(new, [p - 0.5 for p in params])


def test_a_loaded_state_needs_no_new_compilation():
    params = tree(count=3, large=False)
    optimizer = ao.Adamax(params)
    optimizer(params)
    compiled = inside.compiled_steps()
    optimizer(params)
    twin = ao.Adamax(optimizer.parameters)
    twin.load_state_dict(optimizer.state_dict())
    twin(params)
    twin(params)
    assert inside.compiled_steps() == compiled
