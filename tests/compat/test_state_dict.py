"""State dicts of the class `Adamax`: their layout, and runs that continue from them."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamax_optax as ao
from adamax_optax import lr_scheduler

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
    del saved["param_groups"][0]["name"]
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
