"""State dicts of the class `Adamax`: their layout, and runs that continue from them."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import adamax_optax as ao
from adamax_optax import lr_scheduler
from tests.interop.runs import assert_close

ROOT = Path(__file__).parents[2]


def make():
    """Return an optimizer of two groups and its scheduler."""
    params = {"w": jnp.linspace(-1, 1, 6).reshape(2, 3), "b": jnp.zeros(())}
    optimizer = ao.Adamax(
        [
            {"params": params, "weight_decay": 0.1, "name": "body"},
            {"params": jnp.ones(4), "lr": 0.3, "betas": (0.8, 0.9), "maximize": True},
        ],
        lr=0.1,
    )
    return optimizer, lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)


def run(optimizer, scheduler, first, last):
    """Take steps `first` to `last`, with gradients that depend on the parameters."""
    for k in range(first, last):
        body, head = optimizer.parameters
        gradients = [
            {"w": jnp.cos(body["w"] + k), "b": body["b"] - 0.3},
            None if k % 3 == 0 else jnp.sin(head * k),
        ]
        optimizer(gradients)
        scheduler.step()


def test_layout():
    optimizer, scheduler = make()
    assert optimizer.state_dict()["state"] == {}
    run(optimizer, scheduler, 0, 1)  # the second group has no gradient yet
    saved = optimizer.state_dict()
    assert list(saved) == ["state", "param_groups"]
    assert list(saved["state"]) == [0, 1]
    for entry, shape in zip(saved["state"].values(), [(), (2, 3)], strict=True):
        assert list(entry) == ["step", "exp_avg", "exp_inf"]
        assert entry["step"].shape == () and entry["step"] == 1
        assert entry["exp_avg"].shape == entry["exp_inf"].shape == shape
    groups = saved["param_groups"]
    assert [group["params"] for group in groups] == [[0, 1], [2]]
    assert groups[0]["name"] == "body" and groups[1]["betas"] == (0.8, 0.9)
    assert groups[0]["initial_lr"] == 0.1  # the scheduler's


def test_goes_on_bit_for_bit():
    straight, scheduler = make()
    run(straight, scheduler, 0, 12)
    optimizer, scheduler = make()
    run(optimizer, scheduler, 0, 5)
    parameters, saved = optimizer.parameters, optimizer.state_dict()
    later = scheduler.state_dict()
    optimizer, scheduler = make()
    for group, params in zip(optimizer.param_groups, parameters, strict=True):
        group["params"] = params
    optimizer.load_state_dict(saved)
    scheduler.load_state_dict(later)
    run(optimizer, scheduler, 5, 12)
    jax.tree.map(
        np.testing.assert_array_equal, optimizer.parameters, straight.parameters
    )


CONTINUE = """
import pickle, sys
import numpy as np, jax
from tests.compat.test_state_dict import make, run
with open(sys.argv[1], "rb") as file:
    parameters, saved, later = pickle.load(file)
optimizer, scheduler = make()
for group, params in zip(optimizer.param_groups, parameters):
    group["params"] = params
optimizer.load_state_dict(saved)
scheduler.load_state_dict(later)
run(optimizer, scheduler, 5, 12)
with open(sys.argv[2], "wb") as file:
    pickle.dump(jax.tree.map(np.asarray, optimizer.parameters), file)
"""


@pytest.mark.slow
def test_goes_on_bit_for_bit_in_a_new_process(tmp_path):
    straight, scheduler = make()
    run(straight, scheduler, 0, 12)
    optimizer, scheduler = make()
    run(optimizer, scheduler, 0, 5)
    files = [tmp_path / "saved", tmp_path / "result"]
    everything = (optimizer.parameters, optimizer.state_dict(), scheduler.state_dict())
    files[0].write_bytes(pickle.dumps(everything))
    subprocess.run([sys.executable, "-c", CONTINUE, *files], check=True, cwd=ROOT)
    result = pickle.loads(files[1].read_bytes())
    jax.tree.map(np.testing.assert_array_equal, result, straight.parameters)


def test_a_saved_state_is_no_ones_but_the_callers():
    optimizer, scheduler = make()
    run(optimizer, scheduler, 0, 2)
    optimizer.param_groups[0]["notes"] = ["a"]
    saved = optimizer.state_dict()
    saved["param_groups"][0]["notes"].append("b")
    saved["param_groups"][0]["lr"] = 5.0
    assert optimizer.param_groups[0]["notes"] == ["a"]
    assert optimizer.param_groups[0]["lr"] < 1
    # Nor does the optimizer keep anything of what it loads.
    arrays = jax.tree.map(np.array, saved["state"])
    saved["state"] = jax.tree.map(np.array, saved["state"])
    optimizer.load_state_dict(saved)
    optimizer.param_groups[0]["notes"].append("c")
    assert saved["param_groups"][0]["notes"] == ["a", "b"]
    run(optimizer, scheduler, 2, 4)
    jax.tree.map(np.testing.assert_array_equal, saved["state"], arrays)


def test_a_state_that_lost_its_entries_is_refused():
    optimizer, scheduler = make()
    run(optimizer, scheduler, 0, 3)
    saved = optimizer.state_dict()
    saved["state"] = {}
    fresh, _ = make()
    for other in (saved, json.loads(json.dumps(saved))):
        with pytest.raises(ValueError, match=r"'state' is empty.*params\[1\]"):
            fresh.load_state_dict(other)
        assert fresh.state_dict()["state"] == {}
    # The option is no hyperparameter, and says nothing about a loaded run.
    assert "steps_taken" not in optimizer.param_groups[0]
    optimizer.load_state_dict(fresh.state_dict())
    fresh.load_state_dict(optimizer.state_dict())


def test_a_rate_that_pytorch_rounded_below_zero():
    optimizer, _ = make()
    saved = optimizer.state_dict()
    saved["param_groups"][0]["lr"] = -2.6e-19
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] == 0.0
    saved["param_groups"][0]["lr"] = -1e-3
    with pytest.raises(ValueError, match="lr must be"):
        optimizer.load_state_dict(saved)


def test_loading_resets_what_the_saved_state_does_not_have():
    optimizer, scheduler = make()
    fresh = optimizer.state_dict()
    run(optimizer, scheduler, 0, 3)
    group = optimizer.param_groups[0]
    before = optimizer.parameters
    del fresh["param_groups"][0]["weight_decay"]  # falls back to the default
    optimizer.load_state_dict(fresh)
    assert optimizer.state_dict()["state"] == {}
    assert optimizer.param_groups[0] is group
    assert group["weight_decay"] == 0.0 and group["name"] == "body"
    jax.tree.map(np.testing.assert_array_equal, optimizer.parameters, before)


def test_numbers_of_a_state_dict_may_be_any():
    optimizer, scheduler = make()
    run(optimizer, scheduler, 1, 3)
    saved = optimizer.state_dict()
    names = {0: 10, 1: 5, 2: 7}
    saved["state"] = {names[k]: entry for k, entry in saved["state"].items()}
    for group in saved["param_groups"]:
        group["params"] = [names[k] for k in group["params"]]
    other, _ = make()
    other.load_state_dict(saved)
    expected = optimizer.state_dict()["state"]
    jax.tree.map(np.testing.assert_array_equal, other.state_dict()["state"], expected)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray, "json"])
def test_survives_formats_that_know_less(kind):
    optimizer, scheduler = make()
    run(optimizer, scheduler, 1, 3)
    saved = optimizer.state_dict()
    if kind is jnp.asarray:  # there are no JAX arrays of strings
        del saved["param_groups"][0]["name"], saved["param_groups"][0]["param_names"]
    if kind == "json":
        lists = jax.tree.map(
            lambda x: x.tolist() if isinstance(x, jax.Array) else x, saved
        )
        changed = json.loads(json.dumps(lists))
    else:
        changed = jax.tree.map(kind, saved)
    other, _ = make()
    for group, params in zip(other.param_groups, optimizer.parameters, strict=True):
        group["params"] = params
    other.load_state_dict(changed)
    gradients = [{"w": jnp.ones((2, 3)), "b": jnp.ones(())}, jnp.ones(4)]
    jax.tree.map(np.testing.assert_array_equal, other(gradients), optimizer(gradients))


class Tensor:
    """A stand-in for MindSpore's, which is read with `asnumpy`."""

    def __init__(self, values):
        self.values = values

    def asnumpy(self):
        return self.values


def test_takes_tensors_of_mindspore():
    optimizer = ao.Adamax(jnp.ones(2))
    optimizer(jnp.ones(2))
    saved = optimizer.state_dict()
    expected = jax.tree.map(np.array, saved)
    for key, value in saved["state"][0].items():
        saved["state"][0][key] = Tensor(np.asarray(value))
    saved["param_groups"][0]["lr"] = Tensor(np.float32(0.5))
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] == 0.5
    jax.tree.map(
        np.testing.assert_array_equal,
        optimizer.state_dict()["state"],
        expected["state"],
    )


def names_in(optimizer):
    groups = optimizer.state_dict()["param_groups"]
    return [group.get("param_names") for group in groups]


def test_names_are_those_of_interop():
    class Net(nnx.Module):
        def __init__(self):
            layers = [nnx.Linear(2, 2, rngs=nnx.Rngs(k)) for k in (0, 1)]
            # Before Flax 0.12, a plain list does.
            self.layers = getattr(nnx, "List", list)(layers)
            self.norm = nnx.LayerNorm(2, rngs=nnx.Rngs(0))

    net = Net()
    expected = ao.interop.leaf_names(nnx.state(net, nnx.Param))
    assert "layers.0.kernel" in expected
    assert names_in(ao.Adamax(net)) == [expected]
    assert names_in(ao.Adamax([{"params": net.layers[0]}, {"params": net.norm}])) == [
        ["bias", "kernel"],
        ["bias", "scale"],
    ]
    tree = {
        "a": [jnp.ones(2), {"b.c": (jnp.ones(3),), 4: jnp.ones(1)}],
        "d": jnp.ones(1),
    }
    del tree["a"][1][4]  # JAX does not sort keys of two types
    assert names_in(ao.Adamax(tree)) == [ao.interop.leaf_names(tree)]


@pytest.mark.parametrize(
    "params",
    [
        jnp.ones(2),
        [jnp.ones(2), jnp.ones(2)],
        {"a.b": jnp.ones(2), "a": {"b": jnp.ones(2)}},  # both would be a.b
        [{"params": []}],
    ],
)
def test_parameters_without_names(params):
    assert names_in(ao.Adamax(params)) == [None]


def scaled(**scales):
    """Return an optimizer after a step with gradients of these sizes, by name."""
    optimizer = ao.Adamax({name: jnp.ones(2) for name in scales})
    optimizer({name: jnp.full(2, scale) for name, scale in scales.items()})
    return optimizer


def sizes(optimizer):
    """Return the infinity norm of each parameter, in order."""
    entries = optimizer.state_dict()["state"].values()
    return [round(float(entry["exp_inf"][0]), 3) for entry in entries]


def by_names(saved, names):
    """Return a state dict of one group as PyTorch gathers it from several processes."""
    [group] = saved["param_groups"]
    state = {names[k]: entry for k, entry in saved["state"].items()}
    group = {k: v for k, v in group.items() if k != "param_names"}
    return {"state": state, "param_groups": [{**group, "params": names}]}


def test_names_decide():
    # Other names are in another order: q, p, r.
    saved = ao.Adamax([jnp.ones(2)] * 3)
    saved([jnp.full(2, x) for x in (1.0, 2.0, 3.0)])
    saved = saved.state_dict()
    for changed in (
        {
            **saved,
            "param_groups": [
                {**saved["param_groups"][0], "param_names": ["q", "p", "r"]}
            ],
        },
        by_names(saved, ["q", "p", "r"]),
    ):
        optimizer = scaled(p=7.0, q=8.0, r=9.0)
        optimizer.load_state_dict(changed)
        assert sizes(optimizer) == [2.0, 1.0, 3.0]
        assert "param_names" not in optimizer.param_groups[0]
        # Without names of its own, it takes theirs.
        other = ao.Adamax([jnp.ones(2)] * 3)
        other.load_state_dict(changed)
        assert sizes(other) == [1.0, 2.0, 3.0]
    other.load_state_dict({**changed, **saved})  # and keeps them
    assert names_in(other) == [None]
    other.param_groups[0]["param_names"] = ["r", "q", "p"]
    other.load_state_dict(changed)
    assert sizes(other) == [3.0, 1.0, 2.0]
    assert other.param_groups[0]["param_names"] == ["r", "q", "p"]
    # Names of numbers are none.
    saved["param_groups"][0]["param_names"] = ["2", "1", "0"]
    other.load_state_dict(saved)
    assert sizes(other) == [1.0, 2.0, 3.0]


def test_names_of_pytorch():
    torch = pytest.importorskip("torch")
    # In the order of construction, which is not that of the names.
    layers = {name: torch.nn.Linear(3, 3) for name in ("out", "hidden")}
    tensors = dict(torch.nn.ModuleDict(layers).named_parameters())
    theirs = torch.optim.Adamax(tensors.items(), lr=0.1)
    ours = ao.Adamax({name: jnp.zeros(t.shape) for name, t in tensors.items()})
    rng = np.random.default_rng(0)

    def values():
        return {name: jnp.array(t.detach().numpy()) for name, t in tensors.items()}

    def step(*optimizers):
        gradients = {name: rng.normal(size=t.shape) for name, t in tensors.items()}
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(gradients[name], dtype=torch.float32)
        theirs.step()
        for optimizer in optimizers:
            optimizer(jax.tree.map(jnp.float32, gradients))

    step()
    step()
    ours.load_state_dict(theirs.state_dict())
    ours.param_groups[0]["params"] = values()
    step(ours)
    step(ours)
    assert_close(ours.parameters, values())
    # PyTorch takes our names, and goes by number.
    saved = jax.tree.map(
        lambda x: torch.tensor(np.asarray(x)) if isinstance(x, jax.Array) else x,
        ours.state_dict(),
    )
    again = torch.optim.Adamax([tensors[name] for name in sorted(tensors)])
    again.load_state_dict(saved)
    [group] = again.param_groups
    assert group["param_names"] == sorted(tensors) and group["lr"] == 0.1
    for tensor in group["params"]:
        norms = again.state[tensor]["exp_inf"], theirs.state[tensor]["exp_inf"]
        assert_close(*(norm.numpy() for norm in norms))


def test_names_that_differ_are_refused():
    optimizer = scaled(fc=1.0, out=2.0)
    message = r"""group 0 has parameters named \['final'\], where .* has \['out'\]
- .*adamax_optax.interop matches .*; to match by order, set 'param_names' of each"""
    saved = scaled(fc=1.0, final=2.0).state_dict()
    before = [optimizer.state_dict(), optimizer.parameters]
    for changed in (saved, by_names(saved, ["fc", "final"])):
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(changed)
    after = [optimizer.state_dict(), optimizer.parameters]
    jax.tree.map(np.testing.assert_array_equal, after, before)
    saved["param_groups"][0]["param_names"] = None
    optimizer.load_state_dict(saved)


def test_one_array_as_several_parameters():
    # Such as zeros that several biases begin with.
    optimizer, other = (ao.Adamax([jnp.ones(2)] * 3) for _ in range(2))
    optimizer([jnp.full(2, x) for x in (1.0, 2.0, 3.0)])
    other.load_state_dict(optimizer.state_dict())
    assert sizes(other) == [1.0, 2.0, 3.0]
    assert sizes(pickle.loads(pickle.dumps(other))) == [1.0, 2.0, 3.0]
    other.param_groups[0]["state_dtype"] = "bfloat16"
    assert sizes(other) == [1.0, 2.0, 3.0]


def test_groups_of_equal_names():
    def make(scale):
        optimizer = ao.Adamax([{"params": {"w": jnp.ones(2)}} for _ in range(2)])
        optimizer([{"w": jnp.full(2, scale)}, {"w": jnp.full(2, 2 * scale)}])
        return optimizer

    optimizer = make(1.0)
    optimizer.load_state_dict(make(3.0).state_dict())
    assert sizes(optimizer) == [3.0, 6.0]


@pytest.mark.parametrize("names", [["w"], ["w", "w"], "wv", ["w", 1], {"w": 1, "v": 2}])
def test_names_of_a_group_that_are_none(names):
    optimizer = scaled(v=1.0, w=1.0)
    saved = optimizer.state_dict()
    optimizer.param_groups[0]["param_names"] = names
    message = "'param_names' of group 0 must be a list of 2 names that differ, got"
    with pytest.raises(ValueError, match=message):
        optimizer.state_dict()
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(saved)
    del optimizer.param_groups[0]["param_names"]
    saved["param_groups"][0]["param_names"] = names
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(saved)


def test_a_state_from_before_the_first_step():
    # As in PyTorch, it takes an optimizer back there.
    optimizer = scaled(v=1.0, w=1.0)
    fresh = ao.Adamax({"v": jnp.ones(2), "w": jnp.ones(2)}).state_dict()
    assert fresh["state"] == {}
    optimizer.load_state_dict(fresh)
    assert optimizer.state_dict()["state"] == {}


def test_a_bound_that_grows():
    # With β1 > β2, |m| / u does; state dicts take whatever the codes do.
    optimizer = ao.Adamax({"w": jnp.ones(2)}, betas=(0.99, 0.5))
    optimizer.param_groups[0]["state_dtype"] = "uint16"
    for _ in range(40):
        optimizer({"w": jnp.ones(2)})
    saved = optimizer.state_dict()
    assert saved["state"][0]["bound"] > 1000
    optimizer.load_state_dict(saved)
    assert optimizer.state_dict()["state"][0]["bound"] == saved["state"][0]["bound"]


@pytest.mark.usefixtures("x64")
def test_hyperparameters_of_float64():
    optimizer = ao.Adamax({"w": jnp.ones(2)}, betas=(1 - 2e-8, 0.999))
    optimizer.load_state_dict(optimizer.state_dict())
    single = ao.Adamax({"w": jnp.ones(2, jnp.float32)})
    with pytest.raises(ValueError, match=r"betas\[0\] must be below 1, but .* float32"):
        single.load_state_dict(optimizer.state_dict())


def test_an_interrupted_load_changes_nothing(monkeypatch):
    optimizer, other = scaled(v=1.0, w=2.0), scaled(v=3.0, w=4.0)
    other.param_groups[0]["lr"] = 0.5
    group = optimizer.param_groups[0]
    before = dict(group)

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(optimizer, "_installed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        optimizer.load_state_dict(other.state_dict())
    monkeypatch.undo()
    assert optimizer.param_groups == [before] and optimizer.param_groups[0] is group
    assert sizes(optimizer) == [1.0, 2.0]


JUNK = [
    *(None, True, 0, 1, -1, 7, 1.5, -0.5, 10**400, 1j, float("nan"), float("inf")),
    *("", "0", "1", "w", "uint16", b"w", object(), int, range(3), len, jnp.bfloat16),
    *([], {}, (), set(), [0], [0, 0], [[1], [2, 3]], {"a": 1}, {0: 0}, {None: {}}),
    *(np.ones(2), np.ones((2, 3)), np.ones(2, complex), np.ones((2, 3), int)),
    *(np.array("w"), np.array(["v", "w"]), np.array(None), np.datetime64("2020")),
    *(np.zeros(0), np.bool_(True), np.float32(2), np.array([1, [2]], object)),
]


def places(node, path=()):
    """Return the path of every place in nested dicts and lists."""
    pairs: Any = ()
    if isinstance(node, dict | list | tuple):
        pairs = node.items() if isinstance(node, dict) else enumerate(node)
    return [path, *(p for key, child in pairs for p in places(child, (*path, key)))]


def changed_at(node, path, how, junk):
    """Return nested dicts and lists, changed at a path."""
    if not path:
        return junk
    key, *below = path
    new = dict(enumerate(node)) if isinstance(node, list | tuple) else dict(node)
    if below or how == "replace":
        new[key] = changed_at(new[key], below, how, junk)
    elif how == "remove":
        del new[key]
    else:  # twice
        new[junk if junk.__hash__ else len(new)] = new[key]
    return type(node)(new.values()) if isinstance(node, list | tuple) else new


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=100, deadline=None)
def test_any_dict_is_loaded_or_refused(data):
    def make():
        optimizer = ao.Adamax(
            [
                {
                    "params": {"v": jnp.ones(()), "w": jnp.ones((2, 3))},
                    "state_dtype": data.draw(st.sampled_from([None, "uint16"])),
                },
                {"params": [jnp.ones(4), jnp.ones(4)], "lr": 0.3},
            ]
        )
        optimizer(gradients)
        return optimizer

    def everything(optimizer):
        arrays = optimizer.parameters, optimizer.state_dict()
        return repr(jax.tree.map(np.array, arrays)), repr(optimizer)

    gradients = [{"v": jnp.ones(()), "w": jnp.ones((2, 3))}, [jnp.ones(4), None]]
    optimizer = make()
    changed: Any = optimizer.state_dict()
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(places(changed)))
        how = data.draw(st.sampled_from(["replace", "remove", "twice"]))
        changed = changed_at(changed, path, how, data.draw(st.sampled_from(JUNK)))
    before = everything(optimizer)
    try:
        optimizer.load_state_dict(changed)
    except ValueError:
        assert everything(optimizer) == before
    else:
        optimizer(gradients)
        optimizer.load_state_dict(optimizer.state_dict())
