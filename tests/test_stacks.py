"""Which leaves share an array; tests/test_stack_small_leaves.py steps them."""

import jax
import jax.numpy as jnp
import numpy as np

import adamax_optax as ao
from adamax_optax._stacks import LEAVES, SMALL, STACK, StackLayout


def test_leaves_of_one_shape_and_dtype_are_stacked():
    tree = {
        "a": jnp.ones(3),
        "b": jnp.ones(3, jnp.bfloat16),
        "c": [np.ones(3, np.float32), None],
        "d": 1.0,
        "e": jnp.ones((3, 1)),
        "f": "not an array",
        "g": 2.0,
    }
    # By number: a and c, d and g.
    assert StackLayout(tree).stacks == [[0, 2], [3, 6]]
    assert StackLayout([jnp.ones(2)] * (LEAVES + 1)).stacks == [list(range(LEAVES))]


def test_packing_is_undone():
    tree = {"a": [jnp.ones(2), jnp.zeros(2)], "b": jnp.ones(3), "c": None}
    layout = StackLayout(tree)
    packed = layout.pack(tree)
    np.testing.assert_array_equal(packed.stacks[0], [[1, 1], [0, 0]])
    assert packed.rest == {"a": [ao.InStack()] * 2, "b": tree["b"], "c": None}
    back = layout.unpack(packed)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, back, tree)


def test_stacks_are_bounded():
    most = STACK // SMALL
    params = [jnp.ones(SMALL)] * (most + 2) + [jnp.ones(SMALL + 1)] * 2
    mu = ao.stack_small_leaves(ao.adamax()).init(params)[2].mu
    assert [x.shape for x in mu.stacks] == [(most, SMALL), (2, SMALL)]
    assert len(jax.tree.leaves(mu.rest)) == 2
