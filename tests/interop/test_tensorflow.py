"""Runs that change between this package and Keras 2, which is TensorFlow's.

What TensorFlow did was recorded by `tests/tensorflow/record_interop.py`, and what it
was given of ours saved by `tests/tensorflow/save_interop.py`. Nothing here needs
TensorFlow. Tolerance: see `runs.assert_close`.
"""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamax_optax as ao
from adamax_optax.interop import from_keras, to_keras
from tests.interop.runs import assert_close, refusal, run
from tests.tensorflow.save_interop import (
    OPTIMIZERS,
    load,
    ours,
    steps_of,
    transformation,
)

pytestmark = pytest.mark.parametrize("optimizer", OPTIMIZERS)

LEAVES = ["conv.kernel", "conv.bias", "norm.scale", "norm.bias"]
LEAVES += ["fc.kernel", "fc.bias"]


def tree_of(arrays):
    """Return arrays in Keras's order as Flax's tree."""
    tree: dict = {}
    for leaf, array in zip(LEAVES, arrays, strict=True):
        layer, word = leaf.split(".")
        tree.setdefault(layer, {})[word] = jnp.asarray(array)
    return tree


def test_goes_on_here(optimizer):
    recorded = load(f"{optimizer}_from")
    tx, params = transformation(), list(recorded["params"].values())
    state = from_keras(recorded["variables"], tx.init(params))
    assert optax.tree_utils.tree_get(state, "count") == 10
    params, _ = run(tx, params, state, steps_of(recorded["gradients"]))
    assert_close(params, list(recorded["end"].values()))


def test_goes_on_in_keras(optimizer):
    params, state, later = ours(optimizer)
    variables, given = load(f"{optimizer}_from")["variables"], load(f"{optimizer}_ours")
    # It is the run that Keras was given …
    weights = to_keras(state, variables)
    assert [(w.dtype, w.shape) for w in weights] == [
        (v.dtype, v.shape) for v in variables.values()
    ]
    for i, weight in enumerate(weights):
        assert_close(weight, given["weights"][str(i)])
    # … and Keras ended where ours does.
    params, _ = run(transformation(), params, state, steps_of(later))
    assert_close(params, list(load(f"{optimizer}_to")["end"].values()))


@pytest.mark.parametrize("by_name", [False, True])
def test_order(optimizer, by_name):
    recorded = load(f"{optimizer}_from")
    names = [name.removesuffix(":0") for name in recorded["params"]]
    if optimizer == "tf_keras":  # the names of its `build` have no optimizer's name
        recorded["variables"] = {
            name.removeprefix("Adamax/"): v for name, v in recorded["variables"].items()
        }
    order = dict(zip(names, LEAVES, strict=True)) if by_name else LEAVES
    fresh = ao.adamax().init(tree_of(recorded["params"].values()))
    state = from_keras(recorded["variables"], fresh, order=order)
    word = {"legacy": "v", "tf_keras": "u"}[optimizer]
    norms = [
        v for k, v in recorded["variables"].items() if f"{word}:0" in k or k[0] == word
    ]
    assert_close(optax.tree_utils.tree_get(state, "nu"), tree_of(norms))
    weights = to_keras(state, recorded["variables"], order=order)
    for weight, variable in zip(weights, recorded["variables"].values(), strict=True):
        np.testing.assert_array_equal(weight, variable)


def test_what_does_not_fit(optimizer):
    variables = load(f"{optimizer}_from")["variables"]
    fresh = ao.adamax().init([jnp.ones(2)])
    step = next(iter(variables))
    rest = {name: v for name, v in variables.items() if name != step}
    if optimizer == "tf_keras":
        assert "- there is no 'iteration'" in refusal(lambda: from_keras(rest, fresh))
        assert "- there is no 'iteration'" in refusal(lambda: to_keras(fresh, rest))
    assert "6 parameters for 1 leaves" in refusal(lambda: from_keras(variables, fresh))
