"""The class `Adamax` on Flax NNX: modules and variables are updated in place."""

import copy
import pickle
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from sklearn.datasets import load_digits

import adamax_optax as ao

ROOT = Path(__file__).parents[2]


class Net(nnx.Module):
    """Two layers with a BatchNorm between, whose statistics are not parameters."""

    def __init__(self, *, rngs):
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.second = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.second(nnx.relu(self.norm(self.first(x))))


@nnx.jit
@nnx.grad
def grad_fn(net):
    return jnp.mean(net(jnp.linspace(-1, 1, 24).reshape(8, 3)) ** 2)


def net_and_gradients():
    net = Net(rngs=nnx.Rngs(0))
    return net, grad_fn(net)


def arrays(net, kind=nnx.Param):
    return jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(net, kind)))


def functional(before, gradients, **hyper):
    """Return what the functional form makes of the parameters in one step."""
    tx = ao.adamax(**hyper)
    updates, _ = tx.update(gradients, tx.init(before), before)
    return optax.apply_updates(before, updates)


def assert_equal(actual, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7),
        actual,
        expected,
    )


@pytest.mark.usefixtures("lenient_promotion")
def test_module_is_updated_in_place():
    net, gradients = net_and_gradients()
    before, statistics = arrays(net), arrays(net, nnx.BatchStat)
    kernel = net.first.kernel
    optimizer = ao.Adamax(net, lr=0.1, weight_decay=0.2)
    assert optimizer.parameters is net
    assert optimizer(gradients) is net
    assert net.first.kernel is kernel
    assert_equal(
        arrays(net),
        functional(
            before,
            nnx.to_pure_dict(gradients),
            learning_rate=0.1,
            weight_decay=0.2,
        ),
    )
    # What is no nnx.Param is not the optimizer's.
    jax.tree.map(np.testing.assert_array_equal, arrays(net, nnx.BatchStat), statistics)


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("params", ["variables", "modules", "dict", "flat"])
def test_every_way_of_passing_the_same(params):
    net, gradients = net_and_gradients()
    expected, _ = net_and_gradients()
    ao.Adamax(expected, lr=0.1)(gradients)
    leaves = jax.tree.leaves(gradients)
    if params == "variables":
        # As MindSpore's list from `net.trainable_params()`.
        variables = nnx.variables(net, nnx.Param)
        flat = jax.tree.leaves(variables, is_leaf=lambda x: isinstance(x, nnx.Param))
        optimizer = ao.Adamax(flat, lr=0.1)
        assert optimizer(tuple(leaves)) is optimizer.param_groups[0]["params"]
    elif params == "modules":
        parts = ["first", "norm", "second"]
        ao.Adamax([getattr(net, name) for name in parts], lr=0.1)(
            [gradients[name] for name in parts]
        )
    elif params == "dict":
        names = ["first", "norm", "second"]
        modules = {name: getattr(net, name) for name in names}
        ao.Adamax(modules, lr=0.1)({name: gradients[name] for name in names})
    else:
        # A sequence of variables counts as one of arrays.
        flat = jax.tree.leaves(gradients, is_leaf=lambda x: isinstance(x, nnx.Variable))
        ao.Adamax(net, lr=0.1)(flat)
    assert_equal(arrays(net), arrays(expected))


@pytest.mark.usefixtures("lenient_promotion")
def test_groups_of_submodules():
    net, gradients = net_and_gradients()
    before = arrays(net)
    rest = [net.norm, net.second.kernel, net.second.bias]
    optimizer = ao.Adamax([{"params": net.first}, {"params": rest, "lr": 0.5}], lr=0.1)
    second = gradients["second"]
    optimizer(
        [gradients["first"], [gradients["norm"], second["kernel"], second["bias"]]]
    )
    pure = nnx.to_pure_dict(gradients)
    slow = functional(before, pure, learning_rate=0.1)
    fast = functional(before, pure, learning_rate=0.5)
    assert_equal(arrays(net), {**fast, "first": slow["first"]})


class Tied(nnx.Module):
    """An embedding that is its own decoder, as in many language models."""

    def __init__(self, *, rngs):
        self.embed = nnx.Linear(3, 3, use_bias=False, rngs=rngs)
        self.head = self.embed

    def __call__(self, x):
        return self.head(self.embed(x))


@pytest.mark.usefixtures("lenient_promotion")
def test_tied_variable_is_one_parameter():
    net = Tied(rngs=nnx.Rngs(0))
    optimizer = ao.Adamax(net, lr=0.1)
    assert optimizer.state_dict()["param_groups"][0]["params"] == [0]
    before = np.asarray(net.embed.kernel)
    gradients = nnx.grad(lambda net: jnp.sum(net(jnp.ones((1, 3)))))(net)
    optimizer(gradients)
    # The first step is lr in the direction of the sign.
    sign = np.sign(np.asarray(jax.tree.leaves(gradients)[0]))
    np.testing.assert_allclose(net.head.kernel, before - 0.1 * sign, rtol=1e-5)


def test_variable_that_stands_twice_is_one_parameter():
    a, b = nnx.Param(jnp.ones(2)), nnx.Param(jnp.zeros(2))
    optimizer = ao.Adamax([a, b, a], lr=0.1)
    optimizer([jnp.ones(2), jnp.ones(2)])
    np.testing.assert_allclose(a[...], 0.9, rtol=1e-6)
    np.testing.assert_allclose(b[...], -0.1, rtol=1e-6)


def test_shared_between_groups():
    net = Tied(rngs=nnx.Rngs(0))
    with pytest.raises(
        ValueError, match=r"params\['kernel'\] of group 1 is already in group 0"
    ):
        ao.Adamax([{"params": net}, {"params": net.head}])


def test_what_nnx_cannot_be():
    with pytest.raises(ValueError, match="all arrays or all of NNX"):
        ao.Adamax([nnx.Param(jnp.ones(2)), jnp.ones(2)])
    with pytest.raises(ValueError, match="at least one parameter"):
        ao.Adamax(nnx.Dropout(0.5, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"params\[0\] is .*int32"):
        ao.Adamax([nnx.Param(jnp.arange(2))])


def test_module_in_a_group_cannot_be_exchanged():
    optimizer = ao.Adamax(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
    optimizer.param_groups[0]["params"] = nnx.Linear(2, 2, rngs=nnx.Rngs(1))
    with pytest.raises(ValueError, match="cannot be replaced"):
        optimizer([jnp.ones(2), jnp.ones((2, 2))])


def test_new_values_in_a_variable_count():
    weight = nnx.Param(jnp.zeros(2))
    optimizer = ao.Adamax([weight], lr=0.1)
    optimizer([jnp.ones(2)])
    weight[...] = jnp.full(2, 5.0)
    optimizer([jnp.ones(2)])
    np.testing.assert_allclose(weight[...], 4.9, rtol=1e-6)


class Rounded(nnx.Param):
    """Has accessors of its own, as Flax 0.12 recommends instead of hooks."""

    def set_value(self, value, **kwargs):
        super().set_value(jnp.round(value), **kwargs)


@pytest.mark.skipif(
    not hasattr(nnx.Variable, "set_value"), reason="Flax 0.11 has only hooks"
)
def test_accessors_of_a_variable_are_called():
    variable = Rounded(jnp.zeros(2))
    ao.Adamax([variable], lr=0.75)([jnp.ones(2)])
    np.testing.assert_array_equal(variable[...], -1.0)


@pytest.mark.filterwarnings("ignore:Variable hooks are deprecated")
def test_hooks_of_a_variable_are_called():
    seen = []

    def hook(variable, value):
        seen.append(np.asarray(value))
        return value

    hooked = nnx.Param(jnp.zeros(2), on_set_value=hook)
    plain = nnx.Param(jnp.zeros(2))
    optimizer = ao.Adamax([hooked, plain], lr=0.5)
    for step in range(1, 4):
        optimizer([jnp.ones(2), jnp.ones(2)])
        np.testing.assert_allclose(hooked[...], -0.5 * step, rtol=1e-6)
        np.testing.assert_array_equal(plain[...], hooked[...])
        np.testing.assert_array_equal(seen[-1], hooked[...])
    assert len(seen) == 3


def test_not_inside_jit():
    weight = nnx.Param(jnp.zeros(2))
    optimizer = ao.Adamax([weight])

    @nnx.jit
    def train_step(gradient):
        optimizer([gradient])

    with pytest.raises(ValueError, match="cannot step inside jit"):
        train_step(jnp.ones(2))
    np.testing.assert_array_equal(weight[...], 0)


@pytest.mark.usefixtures("lenient_promotion")
def test_a_copy_of_both_belongs_together():
    net, gradients = net_and_gradients()
    optimizer = ao.Adamax(net, lr=0.1)
    optimizer(gradients)
    before = arrays(net)
    other_net, other = copy.deepcopy((net, optimizer))
    other(gradients)
    jax.tree.map(np.testing.assert_array_equal, arrays(net), before)
    optimizer(gradients)
    jax.tree.map(np.testing.assert_array_equal, arrays(net), arrays(other_net))


def test_variables_can_be_pickled():
    # Modules cannot, in Flax 0.11.
    weight = nnx.Param(jnp.zeros(2))
    optimizer = ao.Adamax([weight], lr=0.1)
    optimizer([jnp.ones(2)])
    other = pickle.loads(pickle.dumps(optimizer))
    [copied] = other([jnp.arange(2.0)])
    optimizer([jnp.arange(2.0)])
    np.testing.assert_array_equal(copied[...], weight[...])


@pytest.mark.usefixtures("lenient_promotion")
def test_stands_in_nnx_optimizer():
    net, gradients = net_and_gradients()
    expected, _ = net_and_gradients()
    ao.Adamax(expected, lr=0.1)(gradients)
    wrapper = nnx.Optimizer(net, ao.Adamax(jnp.zeros(1), lr=0.1), wrt=nnx.Param)
    wrapper.update(net, gradients)
    assert_equal(arrays(net), arrays(expected))


@pytest.mark.slow
@pytest.mark.usefixtures("lenient_promotion")
def test_mindspore_page_on_real_digits():
    pixels, labels = load_digits(return_X_y=True)
    images = np.kron(pixels.reshape(-1, 8, 8) / 16, np.ones((3, 3)))  # 24x24
    images = np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., None].astype(np.float32)
    labels = labels.astype(np.int32)

    # The code is the guide's own text.
    guide = (ROOT / "docs" / "porting.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", guide, re.M | re.S)
    # The page's lr of 0.1 is a placeholder: Adamax moves every weight by that much.
    code, step, _ = code.partition("data = jax.random")
    assert step
    loop: dict = {}
    exec(code.replace("lr=0.1", "lr=0.005"), loop)

    rng = np.random.default_rng(0)
    seen, unseen = np.split(rng.permutation(len(labels)), [1024])
    losses = []
    for _ in range(4):
        for batch in np.split(rng.permutation(seen), 16):
            losses.append(loop["train_step"](images[batch], labels[batch]))
    predicted = loop["net"](images[unseen]).argmax(-1)
    assert losses[0] > 2 and losses[-1] < 0.4
    assert (np.asarray(predicted) == labels[unseen]).mean() > 0.9
