"""Groups of the class that are removed, put in, replaced or copied, as in PyTorch."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import adamax_optax as ao

torch = pytest.importorskip("torch")

SIZES = (2, 3, 2, 4)


def ours(number=3):
    groups = [
        {"params": jnp.ones(size), "lr": 0.1 * (i + 1)}
        for i, size in enumerate(SIZES[:number])
    ]
    return ao.Adamax(groups, weight_decay=0.1)


def theirs(number=3):
    groups = [
        {"params": [torch.ones(size, requires_grad=True)], "lr": 0.1 * (i + 1)}
        for i, size in enumerate(SIZES[:number])
    ]
    return torch.optim.Adamax(groups, weight_decay=0.1)


def step_both(optimizer, reference):
    for group in reference.param_groups:
        for param in group["params"]:
            param.grad = torch.arange(len(param)) - 0.5
    reference.step()
    optimizer([jnp.arange(float(x.size)) - 0.5 for x in optimizer.parameters])
    for new, group in zip(optimizer.parameters, reference.param_groups, strict=True):
        (expected,) = group["params"]
        # Two units in the last place of the 1 where they began.
        np.testing.assert_allclose(new, expected.detach(), rtol=2e-6, atol=2e-7)


def pop(groups, new):
    groups.pop(1)


def delete(groups, new):
    del groups[0]


def clear(groups, new):
    del groups[1:]


def reverse(groups, new):
    groups.reverse()


def append(groups, new):
    groups.append(new)


def insert(groups, new):
    groups.insert(0, new)


def replace(groups, new):
    groups[1] = new


def copy_one(groups, new):
    # The same parameter in another dict: its moments stay.
    groups[1] = {**groups[1], "lr": 0.7}


@pytest.mark.parametrize(
    "change", [pop, delete, clear, reverse, append, insert, replace, copy_one]
)
def test_a_changed_list_of_groups(change):
    optimizer, reference = ours(), theirs()
    for _ in range(3):
        step_both(optimizer, reference)
    options = {"betas": (0.8, 0.99), "eps": 1e-8, "weight_decay": 0.1, "lr": 0.4}
    change(optimizer.param_groups, {"params": jnp.ones(4), **options})
    # PyTorch itself fills in nothing.
    theirs_too = {**reference.param_groups[0], **options}
    new = {**theirs_too, "params": [torch.ones(4, requires_grad=True)]}
    change(reference.param_groups, new)
    for _ in range(3):
        step_both(optimizer, reference)
    counts = [int(e["step"]) for e in optimizer.state_dict()["state"].values()]
    # Its state_dict() knows no parameters of removed groups.
    expected = [
        int(reference.state[param]["step"])
        for group in reference.param_groups
        for param in group["params"]
    ]
    assert counts == expected


def test_a_group_put_into_the_list_gets_the_defaults():
    optimizer = ao.Adamax({"w": jnp.ones(2)}, lr=0.5, eps=1e-3)
    optimizer({"w": jnp.ones(2)})
    optimizer.param_groups.append({"params": (p for p in [jnp.ones(3)])})
    new = optimizer([{"w": jnp.ones(2)}, [jnp.ones(3)]])
    np.testing.assert_allclose(new[1][0], 0.5, rtol=2e-3)
    assert optimizer.param_groups[1]["eps"] == 1e-3
    assert [int(e["step"]) for e in optimizer.state_dict()["state"].values()] == [2, 1]


def test_a_new_list_of_groups():
    optimizer = ours()
    gradients = [jnp.ones(size) for size in SIZES[:3]]
    optimizer(gradients)
    optimizer.param_groups = optimizer.param_groups[1:]
    optimizer(gradients[1:])
    assert [int(e["step"]) for e in optimizer.state_dict()["state"].values()] == [2, 2]


def test_all_groups_removed():
    optimizer = ao.Adamax(jnp.ones(2))
    optimizer.param_groups.clear()
    assert optimizer([]) == [] and optimizer.parameters == []
    optimizer.param_groups.append({"params": jnp.ones(2), "lr": 0.5})
    np.testing.assert_allclose(optimizer([jnp.ones(2)])[0], 0.5, rtol=1e-6)


def test_empty_groups():
    optimizer = ao.Adamax([{"params": []}, {"params": jnp.ones(2)}], lr=0.5)
    empty, new = optimizer([[], jnp.ones(2)])
    assert empty == []
    np.testing.assert_allclose(new, 0.5, rtol=1e-6)
    saved = optimizer.state_dict()
    assert [group["params"] for group in saved["param_groups"]] == [[], [0]]
    optimizer.load_state_dict(saved)
    optimizer.add_param_group({"params": {}})
    optimizer([[], jnp.ones(2), {}])


@pytest.mark.parametrize(
    ("group", "match"),
    [
        ({"lr": 0.1}, "must be a dict with 'params'"),
        ([jnp.ones(2)], "must be a dict with 'params'"),
        ({"params": jnp.ones(2), "lr": -1.0}, "lr must be at least 0"),
        ({"params": "text"}, "is 'text'"),
    ],
)
def test_a_group_that_does_not_fit(group, match):
    optimizer = ours()
    gradients = [jnp.ones(size) for size in SIZES[:3]]
    optimizer(gradients)
    before = list(group)
    optimizer.param_groups.append(group)
    for call in (optimizer.state_dict, lambda: optimizer([*gradients, jnp.ones(2)])):
        with pytest.raises(ValueError, match=match):
            call()
    assert optimizer.param_groups.pop() is group
    assert len(before) == len(group)
    optimizer(gradients)
    assert [int(e["step"]) for e in optimizer.state_dict()["state"].values()] == [2] * 3


def test_a_group_in_the_list_twice():
    optimizer = ours()
    optimizer.param_groups.append(optimizer.param_groups[0])
    with pytest.raises(ValueError, match="of group 3 is already in group 0"):
        optimizer([jnp.ones(2)])


@pytest.mark.parametrize("name", ["lr", "betas", "eps", "weight_decay", "maximize"])
def test_a_group_that_lost_a_hyperparameter(name):
    optimizer = ours()
    value = optimizer.param_groups[1].pop(name)
    gradients = [jnp.ones(size) for size in SIZES[:3]]
    with pytest.raises(ValueError, match=rf"lacks \['{name}'\]"):
        optimizer(gradients)
    optimizer.param_groups[1][name] = value
    optimizer(gradients)


def test_a_group_that_lost_its_parameters():
    optimizer = ours()
    params = optimizer.param_groups[1].pop("params")
    with pytest.raises(ValueError, match="must be a dict with 'params'"):
        optimizer([jnp.ones(2)])
    optimizer.param_groups[1]["params"] = params
    optimizer([jnp.ones(size) for size in SIZES[:3]])


# --- Modules --------------------------------------------------------------------------


class Block(nnx.Module):
    def __init__(self, rngs):
        self.inner = nnx.Linear(2, 2, rngs=rngs)


class Net(nnx.Module):
    def __init__(self, seed=0):
        rngs = nnx.Rngs(seed)
        self.first = nnx.Linear(2, 2, rngs=rngs)
        self.block = Block(rngs)
        self.last = nnx.Linear(2, 1, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.last(self.block.inner(self.first(x)))


@nnx.grad
def grad_fn(net):
    return jnp.sum(net(jnp.ones((1, 2))))


@pytest.fixture(autouse=True)
def promotion(lenient_promotion):
    pass


def replace_module(net):
    net.block.inner = nnx.Linear(2, 2, rngs=nnx.Rngs(1))


def replace_block(net):
    net.block = Block(nnx.Rngs(1))


def replace_variable(net):
    net.last.bias = nnx.Param(jnp.zeros(1))


def remove_module(net):
    del net.block.inner


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (replace_module, "inner"),
        (replace_block, "block"),
        (replace_variable, "bias"),
        (remove_module, "inner"),
    ],
)
def test_a_part_of_a_module_that_was_replaced(change, name):
    net = Net()
    gradients = grad_fn(net)
    optimizer = ao.Adamax(net)
    optimizer(gradients)
    change(net)
    with pytest.raises(ValueError, match=rf"\['{name}'\] were replaced or removed"):
        optimizer(gradients)


def test_other_parts_of_a_module_may_be_replaced():
    net = Net()
    optimizer = ao.Adamax(net)
    net.dropout = nnx.Dropout(0.1, rngs=nnx.Rngs(3))
    net.extra = nnx.Linear(1, 1, rngs=nnx.Rngs(4))
    nnx.update(net, nnx.state(net, nnx.Param))
    optimizer(grad_fn(Net()))


def groups_of(net):
    return [
        {"params": [net.first, net.block]},
        {"params": [net.last.kernel, net.last.bias], "lr": 0.5},
    ]


def values(net):
    return jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(net, nnx.Param)))


# Modules of Flax 0.11, which has no nnx.Pytree, cannot be pickled.
WAYS = ["deepcopy", "in a dict", *(["pickle"] if hasattr(nnx, "Pytree") else [])]


@pytest.mark.parametrize("parts", [lambda net: net, groups_of])
@pytest.mark.parametrize("how", WAYS)
def test_a_copy_of_both_belongs_together(parts, how):
    net = Net()
    optimizer = ao.Adamax(parts(net), lr=0.1)
    optimizer(grad_fn(net), net)
    if how == "deepcopy":
        other_net, other = copy.deepcopy((net, optimizer))
    elif how == "pickle":
        other_net, other = pickle.loads(pickle.dumps((net, optimizer)))
    else:
        copied = copy.deepcopy({"net": net, "optimizer": optimizer})
        other_net, other = copied["net"], copied["optimizer"]
    gradients, before = grad_fn(net), values(net)
    other(gradients, other_net)
    jax.tree.map(np.testing.assert_array_equal, values(net), before)
    assert not np.array_equal(values(other_net)["last"]["bias"], before["last"]["bias"])
    optimizer(gradients, net)
    jax.tree.map(np.testing.assert_array_equal, values(net), values(other_net))


@pytest.mark.parametrize("parts", [lambda net: net, groups_of])
def test_a_copy_that_would_train_an_orphan(parts):
    net = Net()
    optimizer = ao.Adamax(parts(net), lr=0.1)
    match = r"copied before its optimizer.*net, optimizer = copy.deepcopy"
    for both in (optimizer, (optimizer, net), (Net(), optimizer)):
        with pytest.raises(ValueError, match=match):
            copy.deepcopy(both)


def test_parts_of_a_module_of_equal_shapes():
    net = Net()
    optimizer = ao.Adamax([{"params": net.first}, {"params": net.last}], lr=0.1)
    before = values(net)
    # first and block.inner have the same shapes.
    with pytest.raises(ValueError, match=r"a whole module, pass it too: step\(grad"):
        optimizer(grad_fn(net))
    optimizer(grad_fn(net), net)
    after = values(net)
    for name in ("first", "last"):
        assert not np.array_equal(after[name]["bias"], before[name]["bias"])
    jax.tree.map(np.testing.assert_array_equal, after["block"], before["block"])


def test_a_part_of_the_gradients_of_a_module():
    net = Net()
    optimizer = ao.Adamax([net.first], lr=0.1)
    last = nnx.DiffState(0, nnx.All(nnx.Param, nnx.PathContains("last")))
    gradients = nnx.grad(lambda net: jnp.sum(net(jnp.ones((1, 2)))), argnums=last)(net)
    with pytest.raises(ValueError, match=r"params\[0\]\['bias'\] has no gradient"):
        optimizer(gradients, net)


@pytest.mark.parametrize(
    "change", [list.pop, lambda parts: parts.append(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))]
)
def test_a_changed_list_of_modules(change):
    net = Net()
    optimizer = ao.Adamax([net.first, net.last])
    gradients = grad_fn(net)
    optimizer(gradients, net)
    change(optimizer.param_groups[0]["params"])
    with pytest.raises(ValueError, match="must keep the parts"):
        optimizer(gradients, net)


@pytest.mark.parametrize("module", [jnp.ones(2), nnx.Linear(1, 1, rngs=nnx.Rngs(0))])
def test_a_module_without_the_parameters(module):
    net = Net()
    optimizer = ao.Adamax(net.last)
    with pytest.raises(ValueError, match="must be an nnx.Module with all parameters"):
        optimizer(grad_fn(net), module)
    arrays = ao.Adamax(jnp.ones(2))
    with pytest.raises(ValueError, match="must be an nnx.Module with all parameters"):
        arrays(jnp.ones(2), net)


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("kinds", [(float, complex), (complex, float)])
def test_a_real_parameter_does_not_become_complex(kinds, steps):
    first, other = (jnp.ones(2, kind) for kind in kinds)
    optimizer = ao.Adamax([first], lr=0.1)
    for _ in range(steps):
        optimizer([first])
    held = optimizer.param_groups[0]["params"]
    optimizer.param_groups[0]["params"] = [other]
    with pytest.raises(ValueError, match=r"params\[0\] must stay (real|complex)"):
        optimizer([other])
    optimizer.param_groups[0]["params"] = held
    optimizer([first])
    assert int(optimizer.state_dict()["state"][0]["step"]) == steps + 1


def test_a_list_of_parameters_is_copied():
    own = [jnp.ones(2)]
    optimizer, grouped = ao.Adamax(own), ao.Adamax([{"params": own}])
    own.append(jnp.ones(3))
    assert len(optimizer([jnp.ones(2)])) == 1
    assert len(grouped([[jnp.ones(2)]])[0]) == 1
