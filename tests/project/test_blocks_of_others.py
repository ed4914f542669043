"""The pages' code for other libraries runs, with stand-ins for libraries not installed.

These are the blocks marked `py` instead of `python`. The stand-ins only keep what they
are given; the numbers of the real libraries are compared in tests/interop.
"""

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import adamax_optax as ao

DOCS = Path(__file__).parents[2] / "docs"
KERNEL, BIAS = np.arange(8.0).reshape(2, 4), np.arange(4.0)

pytestmark = pytest.mark.usefixtures("lenient_promotion")


def blocks(page):
    return re.findall(r"^```py\n(.*?)^```$", (DOCS / page).read_text(), re.M | re.S)


TORCH, NAMES, LAYOUTS, MINDSPORE, PADDLE = blocks("interop.md")
(TRAINING,) = blocks("porting.md")


@pytest.fixture
def here(tmp_path, monkeypatch) -> dict[str, Any]:
    """Return the names that the page on moving state uses, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    params = {"fc": {"kernel": jnp.ones((2, 4)), "bias": jnp.ones(4)}}
    return {"interop": ao.interop, "np": np, "tx": ao.adamax(), "params": params}


def moments(state):
    """Return m and u of the kernel and the bias."""
    trees = [optax.tree_utils.tree_get(state, name)["fc"] for name in ("mu", "nu")]
    return [tree[name] for tree in trees for name in ("kernel", "bias")]


def test_no_page_has_others():
    pages = sorted(path.name for path in DOCS.glob("*.md") if blocks(path.name))
    assert pages == ["interop.md", "porting.md"]


def test_torch(here):
    torch = pytest.importorskip("torch")
    net = torch.nn.Linear(4, 2)
    theirs = torch.optim.Adamax(net.parameters())
    net(torch.ones(4)).sum().backward()
    theirs.step()
    here["theirs"] = theirs.state_dict()
    here["params"] = [jnp.ones((2, 4)), jnp.ones(2)]
    here["optimizer"] = ao.Adamax(here["params"])
    exec(TORCH, here)
    mu = optax.tree_utils.tree_get(here["state"], "mu")
    entries = here["optimizer"].state_dict()["state"]
    for k, entry in here["theirs"]["state"].items():
        np.testing.assert_array_equal(mu[k], entry["exp_avg"])
        np.testing.assert_array_equal(entries[k]["exp_avg"], entry["exp_avg"])


def test_mindspore(here):
    saved = {"step_t": np.float32([3])}
    for i, word in enumerate(("exp_avg", "exp_inf")):
        saved |= {f"{word}.fc.weight": KERNEL.T + i, f"{word}.fc.bias": BIAS + i}
    files, loaded = {}, {}
    here["optimizer"] = SimpleNamespace(
        parameters=[SimpleNamespace(name=name) for name in ("fc.weight", "fc.bias")]
    )
    here["mindspore"] = SimpleNamespace(
        save_checkpoint=lambda optimizer, path: files.update({path: saved}),
        load_checkpoint=lambda path: {
            name: SimpleNamespace(asnumpy=lambda array=array: array)
            for name, array in files[path].items()
        },
        Tensor=np.asarray,
        Parameter=lambda tensor, name: tensor,
        load_param_into_net=lambda optimizer, checkpoint: loaded.update(checkpoint),
    )
    exec(MINDSPORE, here)
    for got, expected in zip(
        moments(here["state"]), [KERNEL, BIAS, KERNEL + 1, BIAS + 1], strict=True
    ):
        np.testing.assert_array_equal(got, expected)
    assert loaded.keys() == saved.keys()
    for name, array in saved.items():
        np.testing.assert_array_equal(loaded[name], array)


def test_paddle(here):
    powers = {name: np.float32([0.9**4]) for name in ("w_0", "b_0")}
    saved = {f"linear_0.{k}_beta1_pow_acc_0": power for k, power in powers.items()}
    for i, word in enumerate(("moment", "inf_norm")):
        saved |= {f"linear_0.w_0_{word}_0": KERNEL + i}
        saved |= {f"linear_0.b_0_{word}_0": BIAS + i}
    files, loaded = {}, {}
    here["net"] = SimpleNamespace(
        named_parameters=lambda: [
            ("fc.weight", SimpleNamespace(name="linear_0.w_0")),
            ("fc.bias", SimpleNamespace(name="linear_0.b_0")),
        ]
    )
    here["optimizer"] = SimpleNamespace(
        state_dict=lambda: saved, set_state_dict=loaded.update
    )
    here["paddle"] = SimpleNamespace(
        save=lambda state, path: files.update({path: state}),
        load=lambda path, return_numpy: files[path],
        to_tensor=np.asarray,
    )
    here["saved"] = saved
    exec(LAYOUTS, here)
    exec(NAMES, here)
    exec(PADDLE, here)
    assert optax.tree_utils.tree_get(here["state"], "count") == 3
    for got, expected in zip(
        moments(here["state"]), [KERNEL, BIAS, KERNEL + 1, BIAS + 1], strict=True
    ):
        np.testing.assert_array_equal(got, expected)
    assert {name for name in saved if "moment" in name} < loaded.keys()
    # Only kernels of convolutions change their layout.
    assert here["to_flax"]("conv.kernel", np.ones((8, 3, 5, 5))).shape == (5, 5, 3, 8)
    assert here["from_flax"]("conv.kernel", np.ones((5, 5, 3, 8))).shape == (8, 3, 5, 5)


def test_the_loop_of_mindspore_runs_with_our_class(monkeypatch):
    class LeNet5(nnx.Module):
        traced: Any = None

        def __init__(self):
            self.kernel = nnx.Param(jnp.zeros((4, 3)))

        def __call__(self, data):
            kernel = self.kernel[...] if LeNet5.traced is None else LeNet5.traced
            return data @ kernel

        def trainable_params(self):
            return self

    def value_and_grad(fn, grad_position, weights, has_aux):
        assert grad_position is None and has_aux

        def run(*args):
            def pure(kernel):
                monkeypatch.setattr(LeNet5, "traced", kernel)
                return fn(*args)

            found, gradient = jax.value_and_grad(pure, has_aux=True)(
                weights.kernel[...]
            )
            monkeypatch.setattr(LeNet5, "traced", None)
            return found, [gradient]

        return run

    def cross_entropy(sparse):
        assert sparse
        loss = optax.softmax_cross_entropy_with_integer_labels
        return lambda logits, labels: loss(logits, labels).mean()

    mindspore: Any = ModuleType("mindspore")
    mindspore.nn = SimpleNamespace(SoftmaxCrossEntropyWithLogits=cross_entropy)
    mindspore.value_and_grad = value_and_grad
    experimental: Any = ModuleType("mindspore.experimental")
    experimental.optim = SimpleNamespace(Adamax=ao.Adamax)
    monkeypatch.setitem(sys.modules, "mindspore", mindspore)
    monkeypatch.setitem(sys.modules, "mindspore.experimental", experimental)
    page = {"LeNet5": LeNet5}
    exec(TRAINING, page)
    step: Any = page["train_step"]
    data, labels = jnp.eye(4)[:3], jnp.arange(3)
    losses = [float(step(data, labels)) for _ in range(20)]
    assert losses[-1] < losses[0] / 5
