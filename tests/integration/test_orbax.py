"""Orbax saves and restores every state bit for bit, onto any sharding."""

import functools
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import adamax_optax as ao
from tests.running import FORMS

ROOT = Path(__file__).parents[2]
SAVED_AT = 10
REST = range(SAVED_AT, SAVED_AT + 20)
SAVED_ON = "rows over 4 devices"
RESTORED_ON = [
    pytest.param("rows over 8 devices", marks=pytest.mark.slow),
    "columns over 4 devices",
    pytest.param("1 device", marks=pytest.mark.slow),
]


def sharding(name, ndim):
    """Return how arrays are laid out; those that are no matrices are replicated."""
    devices = np.array(jax.devices())
    match name:
        case "rows over 4 devices":
            mesh, axes = Mesh(devices[:4], "x"), ("x", None)
        case "rows over 8 devices":
            mesh, axes = Mesh(devices, "x"), ("x", None)
        case "columns over 4 devices":
            mesh, axes = Mesh(devices[4:], "x"), (None, "x")
        case "both axes":
            mesh, axes = Mesh(devices.reshape(2, 4), ("x", "y")), ("y", "x")
        case "1 device":
            mesh, axes = Mesh(devices[-1:], "x"), ()
    return NamedSharding(mesh, PartitionSpec(*axes if ndim == 2 else ()))


def placed(tree, where):
    return jax.tree.map(lambda x: jax.device_put(x, sharding(where, x.ndim)), tree)


def target(tree, where):
    """Return what `StandardRestore` is to make of the arrays in a tree."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=sharding(where, x.ndim)
        ),
        tree,
    )


def assert_same_bits(got, expected):
    def compare(a, b):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype and a.shape == b.shape
        assert a.tobytes() == b.tobytes()

    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(compare, got, expected)


def assert_laid_out(tree, where):
    for x in jax.tree.leaves(tree):
        assert x.sharding.is_equivalent_to(sharding(where, x.ndim), x.ndim)


def params():
    rng = np.random.default_rng(0)
    shapes = {"w": (16, 24), "b": (24,), "scalar": ()}
    return {
        name: jnp.asarray(rng.normal(size=shape), jnp.float32)
        for name, shape in shapes.items()
    }


def gradients(step):
    """Return gradients of mixed size, NumPy's, so that they suit any devices."""
    rng = np.random.default_rng(step)
    return jax.tree.map(
        lambda p: (rng.normal(size=p.shape) * 10.0 ** rng.integers(-9, 2)).astype(
            np.float32
        ),
        jax.tree.map(np.asarray, params()),
    )


class Functional(NamedTuple):
    """A run of the functional form."""

    params: optax.Params
    state: optax.OptState


def transformation(state_dtype):
    # A schedule and a wrapper, whose counts and flags are saved along.
    return optax.apply_if_finite(
        ao.adamax(
            optax.linear_schedule(0.02, 0.01, 40),
            weight_decay=0.1,
            state_dtype=state_dtype,
        ),
        max_consecutive_errors=3,
    )


@functools.cache
def compiled_step(state_dtype):
    tx = transformation(state_dtype)

    @jax.jit
    def step(tree, gradient):
        updates, state = tx.update(gradient, tree.state, tree.params)
        return Functional(optax.apply_updates(tree.params, updates), state)

    return step


def run(state_dtype, tree, steps):
    for k in steps:
        tree = compiled_step(state_dtype)(tree, gradients(k))
    return tree


def start(state_dtype):
    return Functional(params(), transformation(state_dtype).init(params()))


class Saved(NamedTuple):
    """A run that was saved in its middle, and how it went on."""

    directory: Path
    at_save: object
    at_end: object


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a function that returns a saved run, the same one each time."""

    @functools.cache
    def saved(save, state_dtype):
        return save(tmp_path_factory.mktemp("checkpoints"), state_dtype)

    return saved


def save_functional(directory, state_dtype):
    at_save = run(state_dtype, placed(start(state_dtype), SAVED_ON), range(SAVED_AT))
    assert_laid_out(at_save, SAVED_ON)
    with ocp.CheckpointManager(directory) as manager:
        manager.save(SAVED_AT, args=ocp.args.StandardSave(at_save))
    return Saved(directory, at_save, run(state_dtype, at_save, REST))


def restore_functional(saved_at, where, directory):
    with ocp.CheckpointManager(directory) as manager:
        return manager.restore(
            SAVED_AT, args=ocp.args.StandardRestore(target(saved_at, where))
        )


@pytest.mark.parametrize(
    "where", [*RESTORED_ON, pytest.param("both axes", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("state_dtype", FORMS)
def test_functional_state(saved, state_dtype, where):
    directory, at_save, at_end = saved(save_functional, state_dtype)
    restored = restore_functional(at_save, where, directory)
    assert_same_bits(restored, at_save)
    assert_laid_out(restored, where)
    again = run(state_dtype, restored, REST)
    assert_same_bits(again, at_end)
    assert_laid_out(again, where)


def make(tree, state_dtype):
    """Return an optimizer of two groups, and its scheduler."""
    optimizer = ao.Adamax(
        [
            {"params": {"w": tree["w"], "b": tree["b"]}, "state_dtype": state_dtype},
            {"params": tree["scalar"], "lr": 0.3, "betas": (0.8, 0.99)},
        ],
        lr=0.02,
        weight_decay=0.1,
    )
    return optimizer, ao.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)


def run_class(optimizer, scheduler, steps):
    for k in steps:
        g = gradients(k)
        # Step counts differ, and one parameter has no state yet when it is saved.
        b = g["b"] if k > 0 else None
        optimizer([{"w": g["w"], "b": b}, g["scalar"] if k >= SAVED_AT else None])
        scheduler.step()


def everything(optimizer):
    return optimizer.parameters, optimizer.state_dict()["state"]


def save_class(directory, state_dtype):
    optimizer, scheduler = make(placed(params(), SAVED_ON), state_dtype)
    run_class(optimizer, scheduler, range(SAVED_AT))
    saved = optimizer.state_dict()
    with ocp.CheckpointManager(directory) as manager:
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(optimizer.parameters),
            state=ocp.args.StandardSave(saved["state"]),
            options=ocp.args.JsonSave(saved["param_groups"]),
            scheduler=ocp.args.JsonSave(scheduler.state_dict()),
        )
        manager.save(SAVED_AT, args=items)
    at_save = everything(optimizer)
    run_class(optimizer, scheduler, REST)
    return Saved(directory, at_save, everything(optimizer))


def restore_class(where, directory):
    """Return the optimizer and its scheduler."""
    optimizer, scheduler = make(params(), None)
    handlers = {
        "params": ocp.StandardCheckpointHandler(),
        "state": ocp.StandardCheckpointHandler(),
        "options": ocp.JsonCheckpointHandler(),
        "scheduler": ocp.JsonCheckpointHandler(),
    }
    with ocp.CheckpointManager(directory, item_handlers=handlers) as manager:
        there = manager.item_metadata(SAVED_AT)["state"].tree
        items = ocp.args.Composite(
            params=ocp.args.StandardRestore(target(optimizer.parameters, where)),
            state=ocp.args.StandardRestore(
                jax.tree.map(lambda x: np.empty(x.shape, x.dtype), there)
            ),
            options=ocp.args.JsonRestore(),
            scheduler=ocp.args.JsonRestore(),
        )
        restored = manager.restore(SAVED_AT, args=items)
    for group, tree in zip(optimizer.param_groups, restored["params"], strict=True):
        group["params"] = tree
    optimizer.load_state_dict(
        {"state": restored["state"], "param_groups": restored["options"]}
    )
    scheduler.load_state_dict(restored["scheduler"])
    return optimizer, scheduler


@pytest.mark.parametrize("where", RESTORED_ON)
@pytest.mark.parametrize("state_dtype", FORMS)
def test_class(saved, state_dtype, where):
    directory, at_save, at_end = saved(save_class, state_dtype)
    optimizer, scheduler = restore_class(where, directory)
    assert optimizer.param_groups[0]["state_dtype"] == state_dtype
    assert_same_bits(everything(optimizer), at_save)
    assert_laid_out(optimizer.parameters, where)
    run_class(optimizer, scheduler, REST)
    assert_same_bits(everything(optimizer), at_end)
    assert_laid_out(optimizer.parameters, where)


ELSEWHERE = """
import pickle, sys
import jax, numpy as np
from tests.integration import test_orbax as here

assert len(jax.devices()) == 1
functional, of_class, result = sys.argv[1:]
tree = here.restore_functional(here.start("uint16"), "1 device", functional)
optimizer, scheduler = here.restore_class("1 device", of_class)
tree = here.run("uint16", tree, here.REST)
here.run_class(optimizer, scheduler, here.REST)
with open(result, "wb") as file:
    pickle.dump(jax.tree.map(np.asarray, (tree, here.everything(optimizer))), file)
"""


@pytest.mark.slow
def test_in_a_process_that_has_one_device(saved, tmp_path):
    runs = [saved(save, "uint16") for save in (save_functional, save_class)]
    arguments = [*(str(each.directory) for each in runs), str(tmp_path / "result")]
    subprocess.run([sys.executable, "-c", ELSEWHERE, *arguments], check=True, cwd=ROOT)
    result = pickle.loads((tmp_path / "result").read_bytes())
    assert_same_bits(result, tuple(each.at_end for each in runs))


def test_a_step_that_donates_does_not_disturb_the_save(tmp_path):
    tx = ao.adamax(0.1)
    step = jax.jit(
        lambda tree, g: Functional(*tx.update(g, tree.state)), donate_argnums=0
    )
    large = jnp.ones((500, 500))
    tree, copies = Functional(large, tx.init(large)), []
    with ocp.CheckpointManager(tmp_path) as manager:
        for k in range(4):
            tree = step(tree, large * k)
            copies.append(jax.tree.map(np.array, tree))
            manager.save(k, args=ocp.args.StandardSave(tree))
            assert not any(x.is_deleted() for x in jax.tree.leaves(tree))
        for k, expected in enumerate(copies):
            restored = manager.restore(k, args=ocp.args.StandardRestore(tree))
            assert_same_bits(restored, expected)


def test_module_of_nnx(tmp_path):
    def make(seed):
        net = nnx.Linear(4, 3, rngs=nnx.Rngs(seed))
        return net, ao.Adamax([{"params": net, "state_dtype": "uint16"}], lr=0.1)

    def train(net, optimizer):
        x = jnp.linspace(-1, 1, 20).reshape(5, 4)
        grad_fn = nnx.jit(nnx.grad(lambda net: jnp.sum(net(x) ** 2)))
        for _ in range(5):
            optimizer([grad_fn(net)])

    net, optimizer = make(0)
    train(net, optimizer)
    saved = optimizer.state_dict()
    with ocp.CheckpointManager(tmp_path) as manager:
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(nnx.state(net, nnx.Param)),
            state=ocp.args.StandardSave(saved["state"]),
        )
        manager.save(0, args=items)
    other, its_optimizer = make(1)
    with ocp.CheckpointManager(tmp_path) as manager:
        items = ocp.args.Composite(
            params=ocp.args.StandardRestore(nnx.state(other, nnx.Param)),
            state=ocp.args.StandardRestore(
                {str(k): v for k, v in saved["state"].items()}
            ),
        )
        restored = manager.restore(0, args=items)
    nnx.update(other, restored["params"])
    its_optimizer.load_state_dict({**saved, "state": restored["state"]})
    train(net, optimizer)
    train(other, its_optimizer)
    assert_same_bits(
        *(
            [jax.tree.leaves(nnx.state(each, nnx.Param)), its.state_dict()["state"]]
            for each, its in [(other, its_optimizer), (net, optimizer)]
        )
    )


@pytest.mark.slow
def test_the_page_in_the_documentation(tmp_path, monkeypatch):
    page = (ROOT / "docs/checkpointing.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks[:3]:
        exec(compile(block, "docs/checkpointing.md", "exec"), names)
    assert_laid_out(names["tree"], "rows over 8 devices")
    before = everything(names["optimizer"])
    for block in blocks[3:]:
        exec(compile(block, "docs/checkpointing.md", "exec"), names)
    assert_same_bits(everything(names["optimizer"]), before)
    assert names["scheduler"].last_epoch == 1
    # The first block again, from the checkpoint of its last step: nothing left to do.
    tree = names["tree"]
    exec(compile(blocks[0], "docs/checkpointing.md", "exec"), names)
    assert names["first"] == 30
    assert_same_bits(names["tree"], tree)
