"""What does not fit is refused as a whole, with all that is wrong; PyTorch's layout.

State dicts of NumPy's arrays serve, so that nothing here needs PyTorch.
"""

import copy
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import adamax_optax as ao
from adamax_optax.interop import (
    from_keras,
    from_mindspore,
    from_torch,
    leaf_names,
    to_mindspore,
    to_torch,
)
from tests.interop.runs import refusal


def saved(*shapes, step=3, dtype=np.float32, **options):
    """Return a state dict of parameters of these shapes."""
    return {
        "state": {
            key: {
                "step": np.float32(step),
                "exp_avg": np.full(shape, 0.5, dtype),
                "exp_inf": np.full(shape, 2.0, dtype),
            }
            for key, shape in enumerate(shapes)
        },
        "param_groups": [{"lr": 0.1, "params": list(range(len(shapes))), **options}],
    }


def problems(*args, **kwargs):
    """Return what `from_torch` says is wrong, a line for each."""
    first, *lines = refusal(lambda: from_torch(*args, **kwargs)).splitlines()
    assert first == "The state dict does not fit:"
    return [line.removeprefix("- ") for line in lines]


def test_everything_at_once_and_nothing_half_loaded():
    state_dict = saved(2, 3, 4, 5, 6, 7)
    state = state_dict["state"]
    state[0]["exp_avg"] = np.ones(9, np.float32)
    state[1]["exp_inf"] = np.ones(3, np.int32)
    state[2]["exp_avg"] = np.ones(4, np.complex64)
    state[3]["step"] = np.float32(np.nan)
    del state[4]["exp_inf"]
    del state[5]
    state[8] = state[0]
    params = {f"p{key}": jnp.ones(key + 2) for key in range(6)}
    fresh = ao.adamax().init(params)
    before = copy.deepcopy(fresh)
    assert problems(state_dict, fresh) == [
        "the saved state has entries for [8], in no group",
        "the saved step of parameter 3 must be one whole number of at least 0, got "
        f"{np.float32(np.nan)!r}",
        "the saved state of parameter 4 lacks ['exp_inf']; it has ['step', 'exp_avg']",
        "there is nothing for the leaves ['p3', 'p4', 'p5']: if they are frozen, keep "
        "them out of the state with optax.masked",
        "mu of the leaf 'p0' must have the parameter's shape (2,), got (9,)",
        "mu of the leaf 'p2' must be floating, as the moment is, got complex64",
        "nu of the leaf 'p1' must be floating, as the moment is, got int32",
    ]
    chex.assert_trees_all_equal(fresh, before)


@pytest.mark.parametrize(
    "step",
    [-1, 1.5, np.inf, -np.inf, np.nan, [1, 2], "3", None, 1j],
)
def test_step_counts(step):
    state_dict = saved(2)
    state_dict["state"][0]["step"] = step
    [problem] = problems(state_dict, ao.adamax().init([jnp.ones(2)]))
    assert problem.startswith("the saved step of parameter 0 must be one whole number")
    assert repr(step) in problem


@pytest.mark.parametrize("step", [3, 3.0, np.int64(3), np.ones(1) * 3, [3]])
def test_step_counts_that_are(step):
    state_dict = saved(2)
    state_dict["state"][0]["step"] = step
    state = from_torch(state_dict, ao.adamax().init([jnp.ones(2)]))
    count = optax.tree_utils.tree_get(state, "count")
    assert count == 3 and count.dtype == jnp.int32 and count.shape == ()


def test_counts_stay_at_the_largest_int32():
    # The class counts further.
    state_dict = saved(2, step=2**32)
    state = from_torch(state_dict, ao.adamax().init([jnp.ones(2)]))
    assert optax.tree_utils.tree_get(state, "count") == 2**31 - 1
    assert to_mindspore(state_dict)["step_t"] == 2**31 - 1


def test_complex_and_real_are_not_mixed():
    # The functional form takes the modulus: its u is real, PyTorch's is not.
    modulus = ao.adamax().init([jnp.ones(2, jnp.complex64)])
    assert problems(saved(2, dtype=np.complex64), modulus) == [
        "nu of the leaf '0' must be floating, as the moment is, got complex64"
    ]
    split = optax.contrib.split_real_and_imaginary(ao.adamax())
    fresh = split.init([jnp.ones(2, jnp.complex64)])
    assert problems(saved(2), fresh) == [
        f"{field} of the leaf '0' must be complex, as the moment is, got float32"
        for field in ("mu", "nu")
    ]


PARAMS = {"a": {"kernel": jnp.ones(2)}, "b": {"scale": jnp.ones(3)}}
NAMES = ["a.weight", "b.weight"]


@pytest.mark.parametrize(
    ("options", "order", "expected"),
    [
        (
            {},
            ["a.kernel"],
            [
                "2 parameters for 1 entries in order",
                "parameter 1 has moments, but no leaf",
                "there is nothing for the leaves ['b.scale']: if they are frozen, keep "
                "them out of the state with optax.masked",
            ],
        ),
        (
            {"param_names": NAMES},
            {"a.weight": "a.kernel", "b.wait": "b.scale"},
            [
                "order has unknown parameters ['b.wait']",
                "parameter 1 ('b.weight') has moments, but no leaf",
                "there is nothing for the leaves ['b.scale']: if they are frozen, keep "
                "them out of the state with optax.masked",
            ],
        ),
        (
            {},
            ["a.kernel", "a.weight"],
            [
                "parameter 1: the leaf 'a.kernel' is taken already",
                "there is nothing for the leaves ['b.scale']: if they are frozen, keep "
                "them out of the state with optax.masked",
            ],
        ),
        (
            {"param_names": ["a.weight", "c.weight"]},
            None,
            [
                "parameter 1 ('c.weight'): there is no leaf 'c.weight'",
                "there is nothing for the leaves ['b.scale']: if they are frozen, keep "
                "them out of the state with optax.masked",
            ],
        ),
    ],
)
def test_orders_that_do_not_fit(options, order, expected):
    fresh = ao.adamax().init(PARAMS)
    assert problems(saved(2, 3, **options), fresh, order=order) == expected


def test_a_word_for_two_leaves_is_none_for_either():
    params = {"a": {"kernel": jnp.ones(2), "scale": jnp.ones(2)}}
    first, *_ = problems(saved(2, param_names=["a.weight"]), ao.adamax().init(params))
    assert first == "parameter 0 ('a.weight'): there is no leaf 'a.weight'"


def test_more_parameters_than_leaves():
    assert problems(saved(2, 3, 4), ao.adamax().init([jnp.ones(2), jnp.ones(3)])) == [
        "3 parameters for 2 leaves",
        "parameter 2 has moments, but no leaf",
    ]


def test_counts_that_differ():
    state_dict = saved(2, 3)
    state_dict["state"][1]["step"] = np.float32(7)
    params = [jnp.ones(2), jnp.ones(3)]
    assert problems(state_dict, ao.adamax().init(params)) == [
        "the leaves ['0', '1'] share one step count, but theirs are [3, 7]: the class "
        "Adamax has one for each"
    ]
    # The parts of a partition have counts of their own, and so has the class.
    parts = {"a": ao.adamax(optax.constant_schedule(0.1)), "b": ao.adamax()}
    state = from_torch(state_dict, optax.partition(parts, ["a", "b"]).init(params))
    counts = optax.tree_utils.tree_get_all_with_path(state, "count")
    assert [int(count) for _, count in counts] == [3, 7, 7]
    optimizer = ao.Adamax(params)
    optimizer.load_state_dict(from_torch(state_dict, optimizer.state_dict()))
    assert [int(x["step"]) for x in optimizer.state_dict()["state"].values()] == [3, 7]


def test_one_code_takes_two_pairs_of_betas():
    state_dict = saved(2, 3)
    state_dict["param_groups"] = [
        {"betas": [0.9, 0.999], "params": [0]},
        {"betas": [0.8, 0.9], "params": [1]},
    ]
    params = [jnp.ones(2), jnp.ones(3)]
    wide = from_torch(state_dict, ao.adamax().init(params))
    small = from_torch(state_dict, ao.adamax(state_dtype=jnp.uint16).init(params))
    chex.assert_trees_all_equal(small, ao.interop.cast_state(wide, jnp.uint16))


def test_parts_without_order():
    parts = {"a": ao.adamax(), "b": ao.adamax()}
    tx = optax.partition(parts, {"x": "b", "y": "a"})
    fresh = tx.init({"x": jnp.ones(2), "y": jnp.ones(3)})
    first, *_ = problems(saved(2, 3), fresh)
    assert first.endswith("have no order: pass order, with names from ['y', 'x']")
    state = from_torch(saved(2, 3), fresh, order=["x", "y"])
    assert {
        int(x) for _, x in optax.tree_utils.tree_get_all_with_path(state, "count")
    } == {3}


def test_a_leaf_in_two_states():
    fresh = optax.chain(ao.adamax(), ao.adamax()).init({"w": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"Several leaves have the same name: \['w'\]"):
        from_torch(saved(2), fresh)
    of_the_class = saved(2, 2, param_names=["w", "w"])
    with pytest.raises(ValueError, match=r"2 names that differ, got \['w', 'w'\]"):
        from_torch(saved(2, 2), of_the_class)


def test_moments_without_a_count():
    link = ao.scale_by_infinity_norm()
    state = from_torch(saved(2), link.init([jnp.ones(2)]))
    np.testing.assert_array_equal(state.mu[0], np.full(2, 0.5))
    with pytest.raises(ValueError, match="scale_by_bias_correction in the chain"):
        to_mindspore(state)


def test_each_part_has_its_own_count():
    # One has none, and the other's is further on in its chain.
    parts = {
        "a": ao.scale_by_infinity_norm(),
        "b": optax.chain(
            ao.scale_by_infinity_norm(),
            optax.scale_by_schedule(optax.constant_schedule(1.0)),
            ao.scale_by_bias_correction(),
        ),
    }
    tx = optax.partition(parts, ["a", "b"])
    state_dict = saved(2, 3)
    state_dict["state"][0]["step"] = np.float32(7)
    state = from_torch(state_dict, tx.init([jnp.ones(2), jnp.ones(3)]))
    _, schedule, correction = state.inner_states["b"].inner_state
    assert (schedule.count, correction.count) == (7, 3)
    with pytest.raises(ValueError, match="moments without a step count"):
        to_mindspore(state)


def test_numbers_of_a_list_in_parts_are_in_order():
    labels = ["b" if i % 3 else "a" for i in range(12)]
    tx = optax.partition({"a": ao.adamax(), "b": ao.adamax()}, labels)
    state_dict = saved(*[2] * 12)
    for key, entry in state_dict["state"].items():
        entry["exp_inf"] = np.full(2, key, np.float32)
    state = from_torch(state_dict, tx.init([jnp.ones(2)] * 12))
    for part in state.inner_states.values():
        for key, nu in enumerate(optax.tree_utils.tree_get(part, "nu")):
            assert isinstance(nu, optax.MaskedNode) or nu[0] == key


def test_a_leaf_that_no_parameter_is():
    fresh = ao.adamax().init(PARAMS)
    message = refusal(lambda: to_mindspore(fresh, order={"x": "a.kernel", "y": None}))
    assert message.splitlines() == [
        "The state does not fit:",
        "- no parameter matches the leaf 'b.scale'",
    ]


@pytest.mark.parametrize("state_dtype", [None, jnp.bfloat16])
def test_states_of_numpy(state_dtype):
    # As they come back from files.
    fresh = ao.adamax(state_dtype=state_dtype).init([jnp.ones(2)])
    expected = from_torch(saved(2), fresh)
    state = from_torch(saved(2), jax.tree.map(np.asarray, fresh))
    chex.assert_trees_all_equal(state, expected)
    back = to_mindspore(jax.tree.map(np.asarray, state))
    chex.assert_trees_all_equal(back, to_mindspore(state))


def test_a_part_without_leaves():
    parts = {"a": ao.adamax(), "b": ao.adamax(state_dtype=jnp.uint16)}
    tx = optax.partition(parts, ["a"])
    state = from_torch(saved(2), tx.init([jnp.ones(2)]))
    assert to_mindspore(state)["step_t"] == 3


@pytest.mark.parametrize("other", [{"state": {}}, {}, [1], None])
def test_no_state_dict(other):
    with pytest.raises(ValueError, match="must have the keys 'state'"):
        from_torch(other, ao.adamax().init([jnp.ones(2)]))


def test_no_state_of_ours():
    with pytest.raises(ValueError, match="holds no moments of adamax_optax"):
        from_torch(saved(2), optax.adam(0.1).init([jnp.ones(2)]))


def test_state_dicts_of_the_class_that_are_broken():
    broken = saved(2)
    del broken["state"][0]["step"]
    message = refusal(lambda: to_mindspore(broken))
    assert "the saved state of 0 lacks ['step']" in message
    # Nothing is loaded into a state dict either, if there is any problem.
    assert problems(saved(2, step=-1), saved(2))
    # Shapes are for the class to refuse.
    optimizer = ao.Adamax([jnp.ones(3)])
    state_dict = from_torch(saved(2), optimizer.state_dict())
    with pytest.raises(ValueError, match=r"exp_avg of params\[0\] must have"):
        optimizer.load_state_dict(state_dict)


def test_the_class_lists_all_as_well():
    optimizer = ao.Adamax([jnp.ones(2), jnp.ones(3)])
    state_dict = saved(3, 2, betas=(0.9, 0.999))
    message = refusal(lambda: optimizer.load_state_dict(state_dict))
    assert len(message.splitlines()) == 5
    assert "the saved exp_inf of params[1] must have the parameter's shape" in message


def test_the_class_needs_all_of_its_parameters():
    params = {"fc": {"kernel": jnp.ones(2), "bias": jnp.ones(1)}}
    optimizer = ao.Adamax(params)
    fresh = optimizer.state_dict()
    expected = [
        "there is nothing for the leaves ['fc.bias']: if they are frozen, keep them "
        "out of the optimizer"
    ]
    for options, order in [
        ({"param_names": ["fc.weight"]}, None),
        ({}, {0: "fc.kernel"}),
    ]:
        assert problems(saved(2, **options), fresh, order=order) == expected
    theirs = {
        "step_t": np.int32(3),
        "exp_avg.fc.weight": np.ones(2, np.float32),
        "exp_inf.fc.weight": np.ones(2, np.float32),
    }
    variables = {
        "iteration": 3,
        "fc.kernel_momentum": np.ones(2, np.float32),
        "fc.kernel_norm": np.ones(2, np.float32),
    }
    for read, state in [(from_mindspore, theirs), (from_keras, variables)]:
        message = refusal(functools.partial(read, state, fresh))
        assert message.splitlines()[1:] == ["- " + expected[0]]
    # PyTorch has no entry for a parameter that had no gradient, nor need the class.
    state_dict = saved(2, 1, param_names=["fc.weight", "fc.bias"])
    del state_dict["state"][1]
    optimizer.load_state_dict(from_torch(state_dict, fresh))
    [entry] = optimizer.state_dict()["state"].values()
    assert entry["exp_avg"].shape == (2,)


def test_groups_of_the_class_that_share_a_name():
    trees = [{"kernel": jnp.ones(2)}, {"kernel": jnp.ones(3)}]
    optimizer = ao.Adamax([{"params": tree} for tree in trees])
    fresh = optimizer.state_dict()
    named = saved(3, 2, param_names=["b.weight", "a.weight"])
    assert leaf_names(optimizer.parameters) == ["0.kernel", "1.kernel"]
    first, *_ = problems(named, fresh)
    assert first == "parameter 0 ('b.weight'): there is no leaf 'b.weight'"
    order = {"a.weight": "0.kernel", "b.weight": "1.weight"}
    optimizer.load_state_dict(from_torch(named, fresh, order=order))
    assert optimizer.state_dict()["state"][0]["exp_avg"].shape == (2,)


def test_groups_that_are_none():
    pytest.importorskip("torch")  # what `to_torch` returns
    state = ao.adamax().init([jnp.ones(2)])
    with pytest.raises(ValueError, match="'params' of group 0 must be a list, got 3"):
        to_torch(state, param_groups=[{"lr": 0.1, "params": 3}])
