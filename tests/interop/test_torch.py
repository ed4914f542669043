"""Runs that change between this package and torch.optim.Adamax in the middle."""

import copy
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from flax import nnx

import adamax_optax as ao
from adamax_optax.interop import (
    cast_state,
    from_torch,
    kernels_from_flax,
    kernels_to_flax,
    to_torch,
)
from tests.interop.runs import (
    ORDER,
    SHAPES,
    assert_close,
    draw,
    from_flax,
    run,
    to_flax,
)

torch = pytest.importorskip("torch")

HYPER = dict(eps=1e-6, weight_decay=0.1)
BETAS = (0.85, 0.99)
OURS = dict(learning_rate=0.05, b1=0.85, b2=0.99, **HYPER)
THEIRS = dict(lr=0.05, betas=BETAS, **HYPER)


class Run:
    """A run of PyTorch's optimizer over given gradients."""

    def __init__(self, params, make=None, **hyper):
        self.params = {
            name: torch.nn.Parameter(torch.tensor(array))
            for name, array in params.items()
        }
        make = make or (lambda params: params.values())
        self.optimizer = torch.optim.Adamax(make(self.params), **{**THEIRS, **hyper})

    def steps(self, gradients):
        for arrays in gradients:
            for name, param in self.params.items():
                if param.requires_grad:
                    param.grad = torch.tensor(arrays[name])
            self.optimizer.step()
        return {name: p.detach().numpy().copy() for name, p in self.params.items()}

    def state_dict(self):
        return copy.deepcopy(self.optimizer.state_dict())


@pytest.fixture(scope="module")
def run_of_theirs():
    params, gradients = draw()
    side = Run(params)
    middle = side.steps(gradients[:10])
    saved = side.state_dict()
    return saved, middle, gradients[10:], side.steps(gradients[10:])


@pytest.fixture
def theirs(run_of_theirs):
    """A run of PyTorch: its state and parameters at step 10, and at the end."""
    # PyTorch steps the very tensors that it has loaded.
    return copy.deepcopy(run_of_theirs)


def flax_gradients(gradients):
    return list(map(to_flax, gradients))


def test_goes_on_here(theirs):
    saved, middle, gradients, end = theirs
    tx = ao.adamax(**OURS)
    state = from_torch(
        saved, tx.init(to_flax(middle)), order=list(SHAPES), convert=kernels_to_flax
    )
    params, state = run(tx, to_flax(middle), state, flax_gradients(gradients))
    assert_close(params, to_flax(end))
    assert optax.tree_utils.tree_get(state, "count") == 24


@pytest.fixture(scope="module")
def ours():
    """A run of ours: its state and parameters at step 10, and at the end."""
    params, gradients = draw(seed=1)
    tx = ao.adamax(**OURS)
    start = to_flax(params)
    params, state = run(tx, start, tx.init(start), flax_gradients(gradients[:10]))
    end, _ = run(tx, params, state, flax_gradients(gradients[10:]))
    return state, from_flax(params), gradients[10:], end


def test_goes_on_in_pytorch(ours):
    state, middle, gradients, end = ours
    side = Run(middle)
    groups = side.state_dict()["param_groups"]
    saved = to_torch(
        state, param_groups=groups, order=list(SHAPES), convert=kernels_from_flax
    )
    assert saved["param_groups"] == groups and saved["param_groups"] is not groups
    side.optimizer.load_state_dict(saved)
    assert_close(to_flax(side.steps(gradients)), end)


def named(saved):
    """Return the state dict as it is from `named_parameters`."""
    [group] = saved["param_groups"]
    return {**saved, "param_groups": [{**group, "param_names": list(SHAPES)}]}


def by_names(saved):
    """Return the state dict as PyTorch gathers it from several processes."""
    state = dict(zip(SHAPES, saved["state"].values(), strict=True))
    [group] = saved["param_groups"]
    return {"state": state, "param_groups": [{**group, "params": list(SHAPES)}]}


def shuffled(saved):
    """Return the state dict of the same net built in another order, with names."""
    names = sorted(SHAPES, key=lambda name: name[::-1])
    old = list(SHAPES)
    state = {k: saved["state"][old.index(name)] for k, name in enumerate(names)}
    [group] = saved["param_groups"]
    return {"state": state, "param_groups": [{**group, "param_names": names}]}


@pytest.mark.parametrize(
    ("change", "order"),
    [
        (lambda saved: saved, list(ORDER.values())),
        (lambda saved: saved, dict(enumerate(ORDER.values()))),
        (lambda saved: saved, dict(reversed(list(enumerate(SHAPES))))),
        (named, None),
        (named, ORDER),
        (named, dict(enumerate(SHAPES))),
        (by_names, None),
        (shuffled, None),
        (shuffled, ORDER),
    ],
)
def test_ways_to_say_which_leaf_is_which(theirs, change, order):
    saved, params, *_ = theirs
    fresh = ao.adamax().init(to_flax(params))
    expected = to_flax(
        {n: saved["state"][k]["exp_inf"].numpy() for k, n in enumerate(SHAPES)}
    )
    state = from_torch(change(saved), fresh, order=order, convert=kernels_to_flax)
    assert_equal(optax.tree_utils.tree_get(state, "nu"), expected)


def assert_equal(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_named_parameters_of_pytorch_itself():
    params, gradients = draw(steps=3)
    side = Run(params, make=lambda params: params.items())
    side.steps(gradients)
    saved = side.state_dict()
    assert saved["param_groups"][0]["param_names"] == list(SHAPES)
    fresh = ao.adamax().init(to_flax(params))
    state = from_torch(saved, fresh, convert=kernels_to_flax)
    # And back, by the names in the groups.
    again = to_torch(
        state, param_groups=saved["param_groups"], convert=kernels_from_flax
    )
    assert again["param_groups"] == saved["param_groups"]
    assert_equal(jax.tree.map(np.asarray, again["state"]), numpy_state(saved))


def numpy_state(saved):
    return {
        key: {name: value.numpy() for name, value in entry.items()}
        for key, entry in saved["state"].items()
    }


@pytest.mark.parametrize("state_dtype", ["bfloat16", "float16", "uint16"])
def test_reduced_state(theirs, state_dtype):
    saved, params, *_ = theirs
    saved = only(saved, 5)
    start = {"fc": {"kernel": params["fc.weight"].T}}
    tx = ao.adamax(**OURS, state_dtype=state_dtype)
    state = from_torch(saved, tx.init(start), convert=kernels_to_flax)
    wide = from_torch(saved, ao.adamax(**OURS).init(start), convert=kernels_to_flax)
    assert_equal(state, cast_state(wide, state_dtype))
    # Back: what is in the codes.
    back = dict(param_groups=saved["param_groups"], convert=kernels_from_flax)
    coded = to_torch(state, **back)
    expected = to_torch(cast_state(state, None), **back)
    assert_equal(numpy_state(coded), numpy_state(expected))
    error = coded["state"][5]["exp_inf"] / saved["state"][5]["exp_inf"] - 1
    assert 0 < abs(error).max() < 0.12


def only(saved, key):
    """Return the state dict of an optimizer with one of the parameters."""
    [group] = saved["param_groups"]
    return {
        "state": {key: saved["state"][key]},
        "param_groups": [{**group, "params": [key]}],
    }


@pytest.mark.usefixtures("lenient_promotion")
def test_deep_inside_wrappers_with_schedules(theirs):
    # A schedule for each hyperparameter that may have one: in the chain, in the decay
    # and in inject_hyperparams.
    saved, middle, gradients, _ = theirs
    rate = optax.exponential_decay(0.1, 5, 0.5)
    adamax = optax.inject_hyperparams(ao.adamax)
    tx = optax.MultiSteps(
        optax.chain(
            optax.clip_by_global_norm(1e6),
            adamax(rate, *BETAS, weight_decay=0.1, eps=1e-6),
            optax.scale_by_schedule(lambda count: 1.0 + 0.0 * count),
            optax.add_decayed_weights(lambda count: 0.0 * count),
        ),
        every_k_schedule=1,
    )
    state = from_torch(
        saved, tx.init(to_flax(middle)), order=list(SHAPES), convert=kernels_to_flax
    )
    params, state = run(tx, to_flax(middle), state, flax_gradients(gradients))
    # PyTorch's run with the same rates, from step 10 on.
    side = Run(middle)
    side.optimizer.load_state_dict(saved)
    for k, arrays in enumerate(gradients, start=10):
        side.optimizer.param_groups[0]["lr"] = 0.1 * 0.5 ** (k / 5)
        end = side.steps([arrays])
    assert_close(params, to_flax(end))
    # All counts of the chain, but not those of MultiSteps and inject_hyperparams.
    inner = state.inner_opt_state
    counts = optax.tree_utils.tree_get_all_with_path(inner, "count")
    assert sorted(int(count) for _, count in counts) == [14, 24, 24, 24, 24]


def test_parts_of_an_optax_partition():
    # Kernels and all else in groups of their own, with other betas.
    params, gradients = draw(steps=12)
    kinds = {name: "kernels" if len(SHAPES[name]) > 1 else "rest" for name in SHAPES}
    hyper = {
        "kernels": dict(lr=0.1, betas=(0.8, 0.95), weight_decay=0.2),
        "rest": dict(lr=0.02, betas=(0.9, 0.999), weight_decay=0.0),
    }

    def groups(params):
        return [
            {
                "params": [(n, p) for n, p in params.items() if kinds[n] == kind],
                **options,
            }
            for kind, options in hyper.items()
        ]

    side = Run(params, make=groups)
    middle = side.steps(gradients[:6])
    saved = side.state_dict()
    end = side.steps(gradients[6:])
    start = to_flax(middle)
    parts = {
        kind: ao.adamax(o["lr"], *o["betas"], 1e-6, o["weight_decay"])
        for kind, o in hyper.items()
    }
    labels = jax.tree.map(lambda p: "kernels" if p.ndim > 1 else "rest", start)
    tx = optax.partition(parts, labels)
    state = from_torch(saved, tx.init(start), convert=kernels_to_flax)
    ours, after = run(tx, start, state, flax_gradients(gradients[6:]))
    assert_close(ours, to_flax(end))
    # And the other way, in the middle of ours.
    side = Run(from_flax(ours), make=groups)
    back = to_torch(
        after, param_groups=saved["param_groups"], convert=kernels_from_flax
    )
    side.optimizer.load_state_dict(back)
    again, _ = run(tx, ours, after, flax_gradients(gradients[:4]))
    assert_close(to_flax(side.steps(gradients[:4])), again)


def test_parts_in_the_16_bit_word():
    hyper = {"a": (0.8, 0.95), "b": (0.9, 0.999)}
    params, gradients = draw(steps=3)
    params = {"a": params["fc.weight"], "b": params["fc.bias"]}
    gradients = [{"a": g["fc.weight"], "b": g["fc.bias"]} for g in gradients]
    side = Run(
        params,
        make=lambda params: [
            {"params": [(name, params[name])], "betas": betas}
            for name, betas in hyper.items()
        ],
    )
    side.steps(gradients)
    saved = side.state_dict()

    def make(state_dtype):
        parts = {
            name: ao.adamax(b1=b1, b2=b2, state_dtype=state_dtype)
            for name, (b1, b2) in hyper.items()
        }
        return optax.partition(parts, {"a": "a", "b": "b"})

    small = from_torch(saved, make(jnp.uint16).init(params))
    wide = from_torch(saved, make(None).init(params))
    decoded = {}
    for name in hyper:
        expected = cast_state(wide.inner_states[name], jnp.uint16)
        assert_equal(small.inner_states[name], expected)
        decoded[name] = cast_state(expected, None)
    groups = saved["param_groups"]
    expected = to_torch(wide._replace(inner_states=decoded), param_groups=groups)
    back = to_torch(small, param_groups=groups)
    assert_equal(numpy_state(back), numpy_state(expected))


def test_the_class():
    params, gradients = draw(steps=15)
    side = Run(params)
    middle = side.steps(gradients[:5])
    optimizer = ao.Adamax(jax.tree.map(jnp.asarray, to_flax(middle)), **THEIRS)
    state_dict = from_torch(
        side.state_dict(),
        optimizer.state_dict(),
        order=list(SHAPES),
        convert=kernels_to_flax,
    )
    optimizer.load_state_dict(state_dict)
    for arrays in gradients[5:10]:
        ours = optimizer(jax.tree.map(jnp.asarray, to_flax(arrays)))
    assert_close(ours, to_flax(side.steps(gradients[5:10])))
    # And back, with the hyperparameters of the class.
    optimizer.param_groups[0].update(
        lr=jnp.float32(0.25), state_dtype=jnp.bfloat16, lazy_rows=True
    )
    saved = optimizer.state_dict()
    order = dict(zip(SHAPES, SHAPES, strict=True))
    state_dict = to_torch(saved, order=order, convert=kernels_from_flax)
    options = {"eps": 1e-6, "weight_decay": 0.1, "betas": BETAS, "maximize": False}
    assert state_dict["param_groups"] == [
        {**options, "lr": 0.25, "params": list(range(7))}
    ]
    again = Run(from_flax(ours))
    again.optimizer.load_state_dict(state_dict)
    optimizer.load_state_dict(saved)
    optimizer.param_groups[0]["state_dtype"] = None
    for arrays in gradients[10:]:
        ours = optimizer(jax.tree.map(jnp.asarray, to_flax(arrays)))
    assert_close(to_flax(again.steps(gradients[10:])), ours)


def test_the_class_without_names():
    # Numbers, as the class and PyTorch have them, are in order.
    optimizer = ao.Adamax([jnp.ones(2), jnp.ones(3)], lr=0.1)
    optimizer([jnp.ones(2), None])
    saved = to_torch(optimizer.state_dict(), lr=0.5)
    assert list(saved["state"]) == [0]  # the other took no step
    assert saved["param_groups"][0]["lr"] == 0.5
    side = torch.optim.Adamax([torch.ones(2), torch.ones(3)])
    side.load_state_dict(saved)
    swapped = from_torch(side.state_dict(), optimizer.state_dict(), order=["1", "0"])
    assert list(swapped["state"]) == [1]
    moment = saved["state"][0]["exp_avg"].numpy()
    assert_equal(np.asarray(swapped["state"][1]["exp_avg"]), moment)


@pytest.mark.usefixtures("lenient_promotion")
def test_hyperparameters_of_a_functional_state():
    params = [jnp.ones(2)]
    plain, injected = ao.adamax(0.1), optax.inject_hyperparams(ao.adamax)
    with pytest.raises(ValueError, match="does not know its learning rate: pass lr"):
        to_torch(plain.init(params))
    [group] = to_torch(plain.init(params), lr=0.1)["param_groups"]
    theirs = torch.optim.Adamax([torch.ones(2)], lr=0.1).state_dict()
    assert group == {k: theirs["param_groups"][0][k] for k in group}
    # Names in the order are those of PyTorch's numbers.
    shapes = {"kernel": jnp.ones((2, 1)), "bias": jnp.ones(3)}
    _, state = plain.update(shapes, plain.init(shapes))
    saved = to_torch(state, lr=0.1, order={"weight": "kernel", "shift": "bias"})
    found = [tuple(entry["exp_avg"].shape) for entry in saved["state"].values()]
    assert found == [(2, 1), (3,)]
    # What inject_hyperparams has is known, unless it is given.
    tx = injected(0.5, 0.75, 0.875, maximize=jnp.array(True))
    [group] = to_torch(tx.init(params), weight_decay=0.25)["param_groups"]
    assert group == {
        "lr": 0.5,
        "betas": (0.75, 0.875),
        "eps": np.float32(1e-8),
        "weight_decay": 0.25,
        "maximize": True,
        "params": [0],
    }
    tx = optax.inject_hyperparams(ao.adamax, static_args=("b1", "learning_rate"))(0.5)
    [group] = to_torch(tx.init(params), lr=0.1, eps=0.0)["param_groups"]
    assert (group["lr"], group["betas"], group["eps"]) == (0.1, (0.9, 0.999), 0.0)
    with pytest.raises(ValueError, match="eps_outside=0.5"):
        to_torch(injected(0.5, eps_outside=0.5).init(params))


def test_state_before_the_first_step():
    params, gradients = draw(steps=4)
    fresh = ao.adamax(**OURS).init(to_flax(params))
    _, stepped = run(
        ao.adamax(**OURS), to_flax(params), fresh, flax_gradients(gradients)
    )
    saved = to_torch(fresh, lr=0.1, order=list(SHAPES))
    assert saved["state"] == {}
    order = dict(order=list(SHAPES), convert=kernels_to_flax)
    assert_equal(from_torch(saved, stepped, **order), fresh)


def test_frozen_parameters():
    params, gradients = draw(steps=8)
    side = Run(params)
    for name in ("conv.weight", "emb.weight"):
        side.params[name].requires_grad = False
    middle = side.steps(gradients[:4])
    saved = side.state_dict()
    start = to_flax(middle)
    mask = jax.tree.map(lambda p: True, start)
    mask["conv"]["kernel"] = mask["emb"]["embedding"] = False
    tx = optax.masked(ao.adamax(**OURS), mask)
    state = from_torch(
        saved, tx.init(start), order=ORDER_WITHOUT_FROZEN, convert=kernels_to_flax
    )
    ours, state = run(tx, start, state, flax_gradients(gradients[4:]))
    ours["conv"]["kernel"], ours["emb"]["embedding"] = (
        start["conv"]["kernel"],
        start["emb"]["embedding"],
    )
    end = side.steps(gradients[4:])
    assert_close(ours, to_flax(end))
    back = to_torch(
        state,
        param_groups=saved["param_groups"],
        order={k: leaf for k, leaf in enumerate(ORDER.values()) if k not in (0, 4)},
        convert=kernels_from_flax,
    )
    assert back["state"].keys() == saved["state"].keys()


ORDER_WITHOUT_FROZEN = [
    None if name in ("conv.weight", "emb.weight") else leaf
    for name, leaf in ORDER.items()
]


@pytest.mark.usefixtures("lenient_promotion")
def test_complex_parameters_component_wise():
    rng = np.random.default_rng(0)
    gradients = [
        {
            "c": (rng.normal(size=4) + 1j * rng.normal(size=4)).astype(np.complex64),
            "r": rng.normal(size=4).astype(np.float32),
        }
        for _ in range(12)
    ]
    side = Run({"c": np.ones(4, np.complex64), "r": np.ones(4, np.float32)})
    middle = side.steps(gradients[:6])
    tx = optax.contrib.split_real_and_imaginary(ao.adamax(**OURS))
    state = from_torch(side.state_dict(), tx.init(middle))
    params, state = run(tx, middle, state, gradients[6:])
    assert_close(params, side.steps(gradients[6:]))
    again = Run(jax.tree.map(np.array, params))
    again.optimizer.load_state_dict(
        to_torch(state, param_groups=side.state_dict()["param_groups"])
    )
    params, _ = run(tx, params, state, gradients[:3])
    assert_close(again.steps(gradients[:3]), params)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("theirs", "ours", "moments"),
    [
        (torch.bfloat16, "bfloat16", "float32"),
        (torch.float64, "float64", "float64"),
        (torch.float64, "float32", "float32"),
    ],
)
def test_dtypes(theirs, ours, moments):
    tensor = torch.nn.Parameter(torch.ones(3, dtype=theirs))
    optimizer = torch.optim.Adamax([tensor])
    tensor.grad = torch.tensor([1.0, 2.0, 3.0], dtype=theirs)
    optimizer.step()
    fresh = ao.adamax().init(jnp.ones(3, ours))
    state = from_torch(optimizer.state_dict(), fresh)
    mu, nu = (optax.tree_utils.tree_get(state, name) for name in ("mu", "nu"))
    assert mu.dtype == nu.dtype == moments
    kept = optimizer.state_dict()["state"][0]
    np.testing.assert_array_equal(mu, kept["exp_avg"].double().numpy().astype(moments))
    # PyTorch casts to the parameter's dtype what it loads.
    optimizer.load_state_dict(to_torch(state, lr=0.1))
    assert optimizer.state_dict()["state"][0]["exp_inf"].dtype == theirs


def test_nothing_is_shared_and_arrays_stay_where_they_are(theirs):
    saved, params, *_ = theirs
    mesh = jax.make_mesh((2,), ("x",))
    spread = jax.NamedSharding(mesh, jax.P("x"))
    start = jax.tree.map(jnp.asarray, to_flax(params))
    start["fc"]["kernel"] = jax.device_put(start["fc"]["kernel"], spread)
    order = dict(order=list(SHAPES), convert=kernels_to_flax)
    fresh = ao.adamax().init(start)
    state = from_torch(saved, fresh, **order)
    for new, old in zip(jax.tree.leaves(state), jax.tree.leaves(fresh), strict=True):
        assert new.sharding.is_equivalent_to(old.sharding, new.ndim)
        assert new.committed == old.committed
    kernel = start["fc"]["kernel"]
    fresh = ao.adamax(state_dtype=jnp.uint16).init({"fc": {"kernel": kernel}})
    state = from_torch(only(saved, 5), fresh, convert=kernels_to_flax)
    [code] = optax.tree_utils.tree_get(state, "codes")
    assert code["fc"]["kernel"].sharding.is_equivalent_to(spread, 2)
    moments = copy.deepcopy(saved)
    state = from_torch(moments, ao.adamax().init(start), **order)
    kept = jax.tree.map(np.array, state)
    for entry in moments["state"].values():
        entry["exp_avg"].zero_()
    assert_equal(state, kept)
    back = to_torch(state, param_groups=saved["param_groups"], order=list(SHAPES))
    for entry in back["state"].values():
        entry["exp_avg"].zero_()
    assert_equal(state, kept)


def torch_net():
    """Return a small net with the layers whose kernels differ, and a flattening."""
    return torch.nn.ModuleDict(
        {
            "conv": torch.nn.Conv2d(1, 3, 3),
            "up": torch.nn.ConvTranspose2d(3, 2, 2, stride=2),
            "norm": torch.nn.LayerNorm(2),
            "fc": torch.nn.Linear(2 * 8 * 6, 4),
        }
    )


def torch_outputs(net, images):
    x = net["conv"](torch.tensor(images))
    x = torch.tanh(net["up"](torch.tanh(x)))
    x = net["norm"](x.movedim(1, -1)).movedim(-1, 1)
    return net["fc"](x.flatten(1))


class LinenNet(nn.Module):
    """The same in Linen: channels last, also where it flattens."""

    @nn.compact
    def __call__(self, x):
        x = jnp.tanh(nn.Conv(3, (3, 3), padding="VALID", name="conv")(x))
        x = jnp.tanh(nn.ConvTranspose(2, (2, 2), (2, 2), "VALID", name="up")(x))
        x = nn.LayerNorm(epsilon=1e-5, name="norm")(x)
        return nn.Dense(4, name="fc")(x.reshape(len(x), -1))


class NnxNet(nnx.Module):
    """The same in NNX."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 3, (3, 3), padding="VALID", rngs=rngs)
        self.up = nnx.ConvTranspose(3, 2, (2, 2), (2, 2), padding="VALID", rngs=rngs)
        self.norm = nnx.LayerNorm(2, epsilon=1e-5, rngs=rngs)
        self.fc = nnx.Linear(2 * 8 * 6, 4, rngs=rngs)

    def __call__(self, x):
        x = jnp.tanh(self.up(jnp.tanh(self.conv(x))))
        return self.fc(self.norm(x).reshape(len(x), -1))


OPTIONS: dict[str, Any] = {
    "conv_transpose": ["up.kernel"],
    "flattened": {"fc.kernel": (2, 8, 6)},
}
there = functools.partial(kernels_to_flax, **OPTIONS)
back = functools.partial(kernels_from_flax, **OPTIONS)


@pytest.fixture(scope="module")
def trained():
    """PyTorch's net after some steps, its optimizer, and what both learn from."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(8, 1, 6, 5)).astype(np.float32)
    targets = rng.normal(size=(8, 4)).astype(np.float32)
    torch.manual_seed(0)
    net = torch_net()
    optimizer = torch.optim.Adamax(net.named_parameters(), lr=0.01)
    torch_steps(net, optimizer, images, targets, 10)
    return net, optimizer, images, targets


def torch_steps(net, optimizer, images, targets, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        ((torch_outputs(net, images) - torch.tensor(targets)) ** 2).mean().backward()
        optimizer.step()


def leaves_of(net):
    """Return PyTorch's parameters by the names of the leaves, converted."""
    words = {"conv": "kernel", "up": "kernel", "fc": "kernel", "norm": "scale"}
    leaves = {}
    for name, param in net.named_parameters():
        layer, word = name.split(".")
        leaf = f"{layer}.{words[layer] if word == 'weight' else word}"
        leaves[leaf] = there(leaf, param.detach().numpy())
    return leaves


def to_tree(leaves):
    tree: dict = {}
    for leaf, array in leaves.items():
        layer, word = leaf.split(".")
        tree.setdefault(layer, {})[word] = jnp.asarray(array)
    return tree


def loss_fn(outputs, targets):
    return jnp.mean((outputs - targets) ** 2)


# The nets' own gradients differ by rounding, which the steps pass on: 1.5e-6 measured.
NET_TOLERANCE = 5e-6


def assert_nets_agree(actual, expected):
    for leaf, array in expected.items():
        layer, word = leaf.split(".")
        np.testing.assert_allclose(
            actual[layer][word], array, rtol=0, atol=NET_TOLERANCE
        )


@pytest.mark.slow
def test_a_net_goes_on_in_linen_and_back(trained):
    net, optimizer, images, targets = copy.deepcopy(trained)
    linen, data = LinenNet(), images.transpose(0, 2, 3, 1)
    params = to_tree(leaves_of(net))
    expected = torch_outputs(net, images).detach().numpy()
    outputs = linen.apply({"params": params}, data)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)

    tx = ao.adamax(0.01)
    state = from_torch(optimizer.state_dict(), tx.init(params), convert=there)
    assert_nets_agree(
        optax.tree_utils.tree_get(state, "mu"),
        {
            leaf: there(leaf, entry["exp_avg"].numpy())
            for leaf, entry in zip(
                leaves_of(net), optimizer.state_dict()["state"].values(), strict=True
            )
        },
    )

    @jax.jit
    def step(params, state):
        grads = jax.grad(
            lambda params: loss_fn(linen.apply({"params": params}, data), targets)
        )(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(10):
        params, state = step(params, state)
    torch_steps(net, optimizer, images, targets, 10)
    assert_nets_agree(params, leaves_of(net))
    # Back, into the same net: the steps that follow are the same again.
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict(to_torch(state, param_groups=groups, convert=back))
    for _ in range(5):
        params, state = step(params, state)
    torch_steps(net, optimizer, images, targets, 5)
    assert_nets_agree(params, leaves_of(net))


@pytest.mark.slow
def test_a_net_goes_on_in_nnx(trained):
    net, torch_optimizer, images, targets = copy.deepcopy(trained)
    data = jnp.asarray(images.transpose(0, 2, 3, 1))
    module = NnxNet(nnx.Rngs(0))
    leaves = leaves_of(net)
    for name in leaves:
        layer, word = name.split(".")
        param = getattr(getattr(module, layer), word)
        param[...] = jnp.asarray(leaves[name])
    optimizer = nnx.Optimizer(module, ao.adamax(0.01), wrt=nnx.Param)
    names = ao.interop.leaf_names(nnx.state(module, nnx.Param))
    assert sorted(names) == sorted(leaves)
    optimizer.opt_state = from_torch(
        torch_optimizer.state_dict(), optimizer.opt_state, convert=there
    )

    @nnx.jit
    def step(module, optimizer):
        grads = nnx.grad(lambda module: loss_fn(module(data), targets))(module)
        optimizer.update(module, grads)

    for _ in range(10):
        step(module, optimizer)
    torch_steps(net, torch_optimizer, images, targets, 10)
    for name, array in leaves_of(net).items():
        layer, word = name.split(".")
        param = getattr(getattr(module, layer), word)
        np.testing.assert_allclose(param[...], array, rtol=0, atol=NET_TOLERANCE)
    saved = to_torch(
        optimizer.opt_state,
        param_groups=torch_optimizer.state_dict()["param_groups"],
        convert=back,
    )
    assert saved["state"][0]["step"] == 20


def test_options_are_plain_in_pytorch():
    optimizer = ao.Adamax([jnp.ones(2)], betas=np.array([0.8, 0.9]))
    (group,) = to_torch(optimizer.state_dict())["param_groups"]
    assert group["betas"] == (0.8, 0.9)
    assert {type(beta) for beta in group["betas"]} == {float}
