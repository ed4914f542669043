"""Runs that change between this package and MindSpore 2.10 in the middle.

What MindSpore did was recorded by `tests/mindspore/record_interop.py`, and what it was
given of ours saved by `tests/mindspore/save_interop.py`. Nothing here needs MindSpore.

Tolerance: see `runs.assert_close`. MindSpore computes 1 - beta1^t in float32.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamax_optax as ao
from adamax_optax.interop import (
    cast_state,
    from_mindspore,
    kernels_from_flax,
    kernels_to_flax,
    to_mindspore,
)
from tests.interop.runs import assert_close, refusal, run, to_flax
from tests.mindspore.save_interop import (
    CASES,
    DATA,
    MINDSPORE,
    checkpoint,
    in_mindspore,
    ours,
    transformation,
)

PYTORCH = {mindspore: torch for torch, mindspore in MINDSPORE.items()}


def load(name):
    """Return the collections in a recorded file, by their names."""
    collections: dict = {}
    with np.load(DATA / f"{name}.npz") as file:
        for path, array in file.items():
            collection, key = path.split("/")
            collections.setdefault(collection, {})[key] = array
    return collections


def flax_tree(arrays):
    """Return arrays with MindSpore's names as Flax's tree."""
    return to_flax({PYTORCH.get(name, name): a for name, a in arrays.items()})


def steps_of(gradients):
    count = len(next(iter(gradients.values())))
    return [flax_tree({k: v[i] for k, v in gradients.items()}) for i in range(count)]


@pytest.mark.parametrize("case", CASES)
def test_goes_on_here(case):
    recorded = load(f"{case}_from")
    tx, params = transformation(case), flax_tree(recorded["checkpoint"])
    fresh = tx.init(jax.tree.map(jnp.asarray, params))
    state = from_mindspore(recorded["checkpoint"], fresh, convert=kernels_to_flax)
    counts = optax.tree_utils.tree_get_all_with_path(state, "count")
    assert {int(count) for _, count in counts} == {10}
    params, _ = run(tx, params, state, steps_of(recorded["gradients"]))
    assert_close(params, flax_tree(recorded["end"]))


@pytest.mark.parametrize("case", CASES)
def test_goes_on_in_mindspore(case):
    params, state, gradients = ours(case)
    # It is the run that MindSpore was given …
    given = load(f"{case}_ours")
    assert given["checkpoint"].keys() == checkpoint(case, params, state).keys()
    assert_close(checkpoint(case, params, state), given["checkpoint"])
    # … and MindSpore ended where ours does.
    params, _ = run(transformation(case), params, state, gradients)
    assert_close(in_mindspore(params), load(f"{case}_to")["end"])


class Tensor:
    """A stand-in for MindSpore's parameters, which are read with `asnumpy`."""

    def __init__(self, values):
        self.values = values

    def asnumpy(self):
        return self.values


def test_the_class_goes_on():
    recorded = load("experimental_from")
    checkpoint = {name: Tensor(a) for name, a in recorded["checkpoint"].items()}
    params = jax.tree.map(jnp.asarray, flax_tree(recorded["checkpoint"]))
    optimizer = ao.Adamax(params, 0.05, (0.85, 0.99), 1e-6, 0.1)
    optimizer.load_state_dict(
        from_mindspore(checkpoint, optimizer.state_dict(), convert=kernels_to_flax)
    )
    for gradients in steps_of(recorded["gradients"])[:3]:
        optimizer(jax.tree.map(jnp.asarray, gradients))
    saved = optimizer.state_dict()
    assert [int(entry["step"]) for entry in saved["state"].values()] == [13] * 7
    # And back: the same arrays as from the functional state.
    tx = transformation("experimental")
    state = from_mindspore(checkpoint, tx.init(params), convert=kernels_to_flax)
    _, state = run(tx, params, state, steps_of(recorded["gradients"])[:3])
    assert_close(to_mindspore(saved), to_mindspore(state))


@pytest.mark.parametrize(
    "order",
    [
        ["fc.kernel", "conv.kernel"],
        ["fc.weight", "conv.weight"],
        {"b": "fc.kernel", "a": "conv.kernel"},
    ],
)
def test_order(order):
    rng = np.random.default_rng(0)
    b, a = (rng.normal(size=shape) for shape in [(2, 6), (3, 2, 3, 4)])
    arrays = {"exp_avg.b": b, "exp_avg.a": a, "exp_inf.b": b + 1, "exp_inf.a": a + 1}
    params = {"conv": {"kernel": jnp.zeros((3, 4, 2, 3))}, "fc": {"kernel": b.T * 0}}
    state = from_mindspore(
        {"step_t": 5, **arrays},
        ao.adamax().init(jax.tree.map(jnp.float32, params)),
        order=order,
        convert=kernels_to_flax,
    )
    nu = optax.tree_utils.tree_get(state, "nu")
    np.testing.assert_array_equal(nu["fc"]["kernel"], np.float32(b + 1).T)
    names = order if isinstance(order, dict) else dict(zip("ba", order, strict=True))
    back = to_mindspore(state, order=names, convert=kernels_from_flax)
    assert back.pop("step_t") == np.int32(5)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], np.float32(array))


def test_numbers_of_a_list():
    # Without names of ours the order of MindSpore's decides.
    state = from_mindspore(
        {"exp_avg.x": np.ones(2), "exp_inf.x": np.ones(2), "step_t": np.int32(0)},
        ao.adamax().init([jnp.ones(2)]),
    )
    assert list(to_mindspore(state, order=["0"])) == [
        "step_t",
        "exp_avg.0",
        "exp_inf.0",
    ]


def test_reduced_state():
    rng = np.random.default_rng(0)
    arrays = {
        "step_t": np.int32(4),
        "exp_avg.w": rng.normal(size=30).astype(np.float32),
        "exp_inf.w": np.full(30, 3.0, np.float32),
    }
    params = {"w": jnp.zeros(30)}
    tx = ao.adamax(b1=0.85, b2=0.99, state_dtype=jnp.uint16)
    state = from_mindspore(arrays, tx.init(params))
    wide = from_mindspore(arrays, ao.adamax().init(params))
    chex.assert_trees_all_equal(state, cast_state(wide, jnp.uint16))
    decoded = cast_state(state, None)
    chex.assert_trees_all_equal(to_mindspore(state), to_mindspore(decoded))


def test_what_does_not_fit():
    checkpoint = {
        "fc.weight": np.ones(3),
        "exp_avg.fc.weight": np.ones(2),
        "exp_inf.fc.weight": np.ones(2),
        "exp_avg.fc.gone": np.ones(2),
        "exp_inf.new": np.ones(2),
        "exp_avg.other": np.ones(2),
        "exp_inf.other": np.ones(2),
    }
    fresh = ao.adamax().init({"fc": {"kernel": jnp.ones(3), "bias": jnp.ones(1)}})
    message = refusal(lambda: from_mindspore(checkpoint, fresh))
    assert message.splitlines() == [
        "The checkpoint does not fit:",
        "- there is no 'step_t'",
        "- there is no 'exp_inf.fc.gone'",
        "- there is no 'exp_avg.new'",
        "- parameter 'fc.gone': there is no leaf 'fc.gone'",
        "- parameter 'other': there is no leaf 'other'",
        "- parameter 'new': there is no leaf 'new'",
        "- there is nothing for the leaves ['fc.bias']: if they are frozen, keep them "
        "out of the state with optax.masked",
        "- mu of the leaf 'fc.kernel' must have the parameter's shape (3,), got (2,)",
        "- nu of the leaf 'fc.kernel' must have the parameter's shape (3,), got (2,)",
    ]
    message = refusal(lambda: from_mindspore({"step_t": np.nan}, fresh))
    assert "there are no arrays 'exp_avg.{}' and 'exp_inf.{}'" in message
    assert "'step_t' must be one whole number of at least 0" in message


def test_one_count_for_all():
    optimizer = ao.Adamax([jnp.ones(2), jnp.ones(3)])
    with pytest.raises(ValueError, match="MindSpore has one step count"):
        to_mindspore(optimizer.state_dict())
    optimizer([jnp.ones(2), None])
    with pytest.raises(ValueError, match=r"counts \{'0': 1, '1': 0\}"):
        to_mindspore(optimizer.state_dict())
    optimizer([jnp.ones(2), jnp.ones(3)])
    with pytest.raises(ValueError, match=r"counts \{'0': 2, '1': 1\}"):
        to_mindspore(optimizer.state_dict())
