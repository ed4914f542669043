"""The class `Adamax` refuses what does not fit, says why, and then changes nothing."""

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamax_optax as ao

NAN = float("nan")
RANGES = [
    ({"lr": -0.1}, "lr must be at least 0 .* got -0.1"),
    ({"lr": NAN}, "lr must be at least 0 .* got nan"),
    ({"lr": float("inf")}, "lr must be at least 0 and finite, got inf"),
    ({"lr": "fast"}, "lr must be a real number, or a scalar array.* got 'fast'"),
    ({"lr": None}, "lr must be .* got None"),
    ({"lr": 1 + 1j}, r"lr must be .* got \(1\+1j\)"),
    ({"lr": lambda count: 0.1}, "lr must be .* got <function"),
    ({"lr": [0.1]}, r"lr must be .* got \[0.1\]"),
    ({"lr": np.array([0.1, 0.2])}, "lr must be one number, got an array"),
    ({"lr": np.array(-0.1)}, "lr must be at least 0 .* got array"),
    ({"lr": np.array(0.1j)}, "lr must be a real number, or a scalar array"),
    ({"lr": np.array("fast")}, "lr must be a real number, or a scalar array"),
    ({"eps": -1e-8}, "eps must be at least 0 .* got -1e-08"),
    ({"eps": NAN}, "eps must be at least 0 .* got nan"),
    ({"eps": "small"}, "eps must be .* got 'small'"),
    ({"weight_decay": -0.1}, "weight_decay must be at least 0 .* got -0.1"),
    ({"weight_decay": NAN}, "weight_decay must be at least 0 .* got nan"),
    ({"weight_decay": None}, "weight_decay must be .* got None"),
    ({"betas": (1.0, 0.999)}, r"betas\[0\] must be .* below 1, got 1.0"),
    ({"betas": (0.9, 1.0)}, r"betas\[1\] must be .* below 1, got 1.0"),
    ({"betas": (-0.1, 0.9)}, r"betas\[0\] must be at least 0 .* got -0.1"),
    ({"betas": (0.9, NAN)}, r"betas\[1\] must be .* got nan"),
    ({"betas": (0.9, "b")}, r"betas\[1\] must be .* got 'b'"),
    ({"betas": (0.9,)}, r"betas must be two numbers in \[0, 1\), got \(0.9,\)"),
    ({"betas": 0.9}, r"betas must be two numbers in \[0, 1\), got 0.9"),
    ({"betas": (0.9, 0.99, 0.999)}, "betas must be two numbers"),
    ({"betas": np.array([0.9, 0.99, 0.999])}, "betas must be two numbers"),
    # In float32 it is 1.
    ({"betas": (1 - 2e-8, 0.999)}, r"betas\[0\] must be below 1, but 0.99999998 is 1"),
    ({"betas": (0.9, np.float64(1 - 1e-9))}, r"betas\[1\] must .* is 1 in float32"),
    ({"maximize": 1}, "maximize must be True or False, got 1"),
    ({"maximize": None}, "maximize must be True or False, got None"),
    ({"maximize": "no"}, "maximize must be True or False, got 'no'"),
    ({"maximize": np.array([True, False])}, "maximize must be True or False"),
]
# What only the constructor looks at: the value of an array on a device.
LOOKED_AT = [
    ({"lr": jnp.array(-0.1)}, "lr must be at least 0 .* got array"),
    ({"lr": jnp.array(NAN)}, "lr must be at least 0 .* got array"),
    ({"betas": (0.9, jnp.array(1.0))}, r"betas\[1\] must be .* below 1"),
]
NOT_ARRAYS: list[tuple[Any, str]] = [
    ([], r"at least one parameter, got \[\]"),
    ((), r"at least one parameter, got \(\)"),
    ({}, r"at least one parameter, got {}"),
    (None, "at least one parameter, got None"),
    (iter([]), r"at least one parameter, got \[\]"),
    ((p for p in [1.0]), r"params\[0\] is 1.0"),
    ([jnp.ones(2), 1.0], r"params\[1\] is 1.0"),
    ({"a": jnp.ones(2), "b": "text"}, r"params\['b'\] is 'text'"),
    (jnp.arange(3), "params is .*int32"),
    ({"mask": np.array([True])}, r"params\['mask'\] is array"),
]


def stepped():
    """Return an optimizer of two groups in the middle of a run."""
    optimizer = ao.Adamax(
        [{"params": {"w": jnp.ones(2), "b": jnp.ones(())}}, {"params": jnp.ones(3)}],
        lr=0.1,
    )
    optimizer([{"w": jnp.ones(2), "b": jnp.ones(())}, jnp.ones(3)])
    return optimizer


def everything(optimizer):
    """Return all that could change."""
    groups = [
        {k: v for k, v in group.items() if k != "params"}
        for group in optimizer.param_groups
    ]
    state = jax.tree.map(np.array, (optimizer.parameters, optimizer.state_dict()))
    return copy.deepcopy((groups, optimizer.defaults, state, repr(optimizer)))


def assert_refused(optimizer, match, call):
    before = everything(optimizer)
    with pytest.raises(ValueError, match=match):
        call()
    np.testing.assert_equal(everything(optimizer), before)
    # And it can still step.
    optimizer([{"w": jnp.ones(2), "b": jnp.ones(())}, jnp.ones(3)])


@pytest.mark.parametrize(("hyper", "match"), RANGES + LOOKED_AT)
def test_constructor_refuses(hyper, match):
    with pytest.raises(ValueError, match=match):
        ao.Adamax(jnp.ones(2), **hyper)
    group = {"params": jnp.ones(2), **hyper}
    before = dict(group)
    with pytest.raises(ValueError, match=match):
        ao.Adamax([group])
    assert group.keys() == before.keys()


@pytest.mark.parametrize(("hyper", "match"), RANGES + LOOKED_AT)
def test_new_group_refuses(hyper, match):
    optimizer = stepped()
    group = {"params": jnp.zeros(2), **hyper}
    assert_refused(optimizer, match, lambda: optimizer.add_param_group(group))
    assert len(group) == 2


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"foreach": "yes"}, "foreach must be True, False or None, got 'yes'"),
        ({"capturable": 2}, "capturable must be True, False or None, got 2"),
        ({"differentiable": True}, "differentiable must be False, got True: to diff"),
        ({"fused": True}, "fused must be None or False.* got True"),
    ],
)
def test_options_of_pytorch_with_an_effect(options, match):
    with pytest.raises(ValueError, match=match):
        ao.Adamax(jnp.ones(2), **options)


@pytest.mark.parametrize(("hyper", "match"), RANGES)
def test_step_refuses_what_a_group_was_set_to(hyper, match):
    optimizer = stepped()
    before = everything(optimizer)
    good = dict(optimizer.param_groups[1])
    optimizer.param_groups[1].update(hyper)
    gradients = [{"w": jnp.ones(2), "b": jnp.ones(())}, jnp.ones(3)]
    with pytest.raises(ValueError, match=match):
        optimizer(gradients)
    with pytest.raises(ValueError, match=match):
        optimizer.init(gradients)
    optimizer.param_groups[1].update(good)
    np.testing.assert_equal(everything(optimizer), before)


@pytest.mark.parametrize(("params", "match"), NOT_ARRAYS)
def test_params_that_are_none(params, match):
    with pytest.raises(ValueError, match=match):
        ao.Adamax(params)


@pytest.mark.parametrize(
    ("group", "match"),
    [
        ([jnp.ones(2)], "must be a dict with 'params', got"),
        ({"lr": 0.1}, "must be a dict with 'params', got {'lr': 0.1}"),
    ],
)
def test_group_that_is_none(group, match):
    optimizer = stepped()
    assert_refused(optimizer, match, lambda: optimizer.add_param_group(group))


def test_one_array_in_two_groups():
    shared = jnp.ones(2)
    with pytest.raises(
        ValueError, match=r"params\['w'\] of group 1 is already in group 0"
    ):
        ao.Adamax([{"params": [shared]}, {"params": {"v": jnp.ones(2), "w": shared}}])
    optimizer = stepped()
    ours = optimizer.parameters[1]
    assert_refused(
        optimizer,
        r"params\[0\] of group 2 is already in group 1",
        lambda: optimizer.add_param_group({"params": [ours]}),
    )


@pytest.mark.parametrize(
    ("gradients", "match"),
    [
        (None, r"step must be given the gradients.*Got None"),
        (lambda: 0.0, "closures are not called. Got <function"),
        (iter([]), "must be given the gradients.*Got <list_iterator"),
        (1.0, "must be given the gradients.*Got 1.0"),
        ([{"w": jnp.ones(2)}, jnp.ones(3)], r"params\[0\]\['b'\] has no gradient"),
        ([{"w": jnp.ones(2), "b": jnp.ones(())}], r"params\[1\] has no gradient"),
        (jnp.ones(2), r"params\[0\]\['b'\] has no gradient"),
        ([jnp.ones(2)] * 4, r"params\[0\]\['b'\] has no gradient"),
        (
            [{"w": jnp.ones(2), "b": jnp.ones(()), "c": jnp.ones(2)}, jnp.ones(3)],
            r"there is no params\[0\]\['c'\]",
        ),
        (
            [{"w": jnp.ones(3), "b": jnp.ones(())}, jnp.ones(3)],
            r"of params\[0\]\['w'\] has shape \(3,\), the parameter has \(2,\)",
        ),
        (
            [jnp.ones(()), jnp.ones(2), jnp.ones((3, 1))],
            r"gradient of params\[1\] has shape \(3, 1\)",
        ),
        (
            [{"w": jnp.ones(2), "b": 1.0}, jnp.ones(3)],
            r"gradient of params\[0\]\['b'\] must be a JAX or NumPy array, got 1.0",
        ),
        (
            [{"w": jnp.ones(2, int), "b": jnp.ones(())}, jnp.ones(3)],
            r"gradient of params\[0\]\['w'\] has dtype int32",
        ),
        (
            [{"w": jnp.ones(2, complex), "b": jnp.ones(())}, jnp.ones(3)],
            r"of params\[0\]\['w'\] has dtype complex64, the parameter float32",
        ),
    ],
)
def test_gradients_that_do_not_fit(gradients, match):
    optimizer = stepped()
    assert_refused(optimizer, match, lambda: optimizer(gradients))


def test_step_without_gradients():
    # As in PyTorch's `optimizer.step()`.
    optimizer = stepped()
    assert_refused(optimizer, "must be given the gradients", optimizer.step)
    assert_refused(optimizer, "must be given the gradients", optimizer)


def test_names_that_begin_alike_are_two():
    optimizer = ao.Adamax({"a": jnp.ones(2), "ab": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"params\['ab'\] has no gradient"):
        optimizer({"a": None})


def test_step_inside_jit():
    optimizer = stepped()
    assert_refused(
        optimizer,
        "cannot step inside jit, grad or scan",
        lambda: jax.jit(optimizer)(
            [{"w": jnp.ones(2), "b": jnp.ones(())}, jnp.ones(3)]
        ),
    )


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"w": jnp.ones(2)}, "must keep their structure"),
        (
            {"w": jnp.ones(3), "b": jnp.ones(())},
            r"params\[0\]\['w'\] must stay .* \(2,\)",
        ),
        (
            {"w": jnp.ones(2), "b": 1.0},
            r"params\[0\]\['b'\] must stay an array .* got 1.0",
        ),
        (
            {"w": jnp.ones(2), "b": jnp.ones((), int)},
            r"params\[0\]\['b'\] must stay .* of floating",
        ),
    ],
)
def test_parameters_set_by_the_user_that_do_not_fit(params, match):
    optimizer = stepped()
    good = optimizer.param_groups[0]["params"]
    optimizer.param_groups[0]["params"] = params
    with pytest.raises(ValueError, match=match):
        optimizer([{"w": jnp.ones(2), "b": jnp.ones(())}, jnp.ones(3)])
    optimizer.param_groups[0]["params"] = good
    np.testing.assert_equal(everything(optimizer), everything(stepped()))


def changed(**changes):
    """Return a valid state dict, changed by path: `a__b=value`, `None` to remove."""
    state_dict = stepped().state_dict()
    # So that a dict that is taken over in part is noticed.
    state_dict["param_groups"][0]["lr"] = 0.77
    for path, value in changes.items():
        *above, last = [int(x) if x.isdigit() else x for x in path.split("__")]
        node = state_dict
        for key in above:
            node = node[key]
        if value is None:
            del node[last]
        else:
            node[last] = value
    return state_dict


@pytest.mark.parametrize(
    ("state_dict", "match"),
    [
        ([1, 2], r"must have the keys 'state' and 'param_groups', got \[1, 2\]"),
        ({"state": {}}, r"must have the keys .* got \['state'\]"),
        (changed(param_groups__1=None), r"must have \[2, 1\] parameters.* have \[2\]"),
        (changed(param_groups__1__params=[2, 3]), r"they have \[2, 2\]"),
        (changed(param_groups__0__params=None), "lacks 'params'"),
        (changed(param_groups={0: {}}), "'param_groups' must be a list, got {0: {}}"),
        (changed(param_groups__1=3), "group 1 must be a dict of options, got 3"),
        (changed(param_groups__1__params=2), "of group 1 must be a list, got 2"),
        (changed(param_groups__1__params=[1]), r"the parameters \[1\] more than once"),
        (changed(state=[1]), r"'state' must be a dict, got \[1\]"),
        (changed(state__2=[1]), r"entry of 2 in 'state' must be a dict, got \[1\]"),
        (changed(state__2__exp_avg=[[1], [2, 3]]), r"exp_avg of params\[1\] .* shape"),
        (changed(param_groups__1__lr=-1.0), "lr must be at least 0"),
        (changed(param_groups__1__lr=jnp.array(-1.0)), "lr must be at least 0"),
        (changed(param_groups__0__betas=[0.9]), "betas must be two numbers"),
        (changed(state__7={}), r"has entries for \[7\]"),
        (changed(state__1__exp_inf=None), r"params\[0\]\['w'\] lacks \['exp_inf'\]"),
        (changed(state__2__step=None), r"params\[1\] lacks \['step'\]"),
        (changed(state__2__step=-1), r"step of params\[1\] must be .* got -1"),
        (changed(state__2__step=1.5), "must be one whole number .* got 1.5"),
        (changed(state__2__step=NAN), "must be one whole number .* got nan"),
        (changed(state__2__step=np.ones(2)), "must be one whole number"),
        (
            changed(state__2__exp_avg=np.ones(2)),
            r"exp_avg of params\[1\] must have .* shape \(3,\), got \(2,\)",
        ),
        (
            changed(state__2__exp_inf=np.ones(3, complex)),
            r"exp_inf of params\[1\] must be floating, .* got complex128",
        ),
        (
            changed(state__2__exp_inf=np.array(["a", "b", "c"])),
            r"exp_inf of params\[1\] must be floating",
        ),
    ],
)
def test_state_that_does_not_fit(state_dict, match):
    optimizer = stepped()
    assert_refused(optimizer, match, lambda: optimizer.load_state_dict(state_dict))


def test_real_state_for_a_complex_parameter():
    optimizer = ao.Adamax(jnp.ones(3, jnp.complex64))
    saved = ao.Adamax(jnp.ones(3))
    saved(jnp.ones(3))
    with pytest.raises(ValueError, match="exp_avg of params must be complex"):
        optimizer.load_state_dict(saved.state_dict())


@pytest.mark.usefixtures("x64")
def test_a_beta_next_to_1_by_the_dtype_of_the_parameters():
    beta = 1 - 2e-8
    wide = ao.Adamax(jnp.ones(2), betas=(beta, 0.999), lr=0.5)
    np.testing.assert_allclose(wide(jnp.ones(2)), 0.5)
    wide.load_state_dict(wide.state_dict())
    for value in (beta, np.float64(beta), jnp.float64(beta)):
        with pytest.raises(ValueError, match=r"betas\[0\] must be below 1"):
            ao.Adamax(jnp.ones(2, jnp.float32), betas=(value, 0.999))


def test_arrays_of_numpy_are_used_as_float32():
    with pytest.raises(ValueError, match=r"betas\[0\] must be below 1"):
        ao.Adamax([{"params": np.ones(2), "betas": (1 - 2e-8, 0.999)}])


def test_a_state_dict_can_be_saved_in_an_emergency():
    optimizer = stepped()
    optimizer.param_groups[0]["lr"] = NAN
    assert np.isnan(optimizer.state_dict()["param_groups"][0]["lr"])
