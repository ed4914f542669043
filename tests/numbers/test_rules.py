"""Every rule of docs/rules.md: the line that the page gives has that library's numbers.

The lines are read from the page and run with the hyperparameters of each case. They are
compared with

- Keras 3, live;
- TensorFlow, PaddlePaddle, MXNet and files of other repositories, recorded by
  `record.py` in the folders of these names under `tests`.

Tolerance in float32: 1e-6 of the element's largest value in the run, plus 1e-6 of the
learning rate for each step, since every step rounds, and these libraries compute
1 - beta1^t in float32.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from tests.running import random_gradients, trajectory

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "rules.md"
DATA = ROOT / "tests" / "data"
STEPS = 60

# Optax's links do not all run under strict promotion.
pytestmark = pytest.mark.usefixtures("lenient_promotion")


def namespace() -> dict[str, Any]:
    """Run the page's blocks; return what they define."""
    document = Sybil([PythonCodeBlockParser()]).parse(PAGE)
    for example in document:
        example.evaluate()
    return document.namespace


def lines() -> dict[str, str]:
    """Return the page's lines, by the library that they are for."""
    table = PAGE.read_text().partition("## The equations")[0]
    rows = re.findall(r"^\| (.*?) \| `(.*?)`.*\|$", table, re.M)
    return dict(rows)


NAMESPACE, LINES = namespace(), lines()


def ours(name: str, **hyper: Any) -> optax.GradientTransformation:
    """Return the optimizer that the page gives for a library."""
    return eval(LINES[name], NAMESPACE, {"weight_decay": 0.0, **hyper})


def assert_follows(tx, params, gradients, expected):
    """Assert that a run gives the recorded parameters of every step."""
    rate = np.abs(np.diff(expected, axis=0)).max()
    got, _ = trajectory(tx, params, gradients)
    size = np.abs(expected).max(axis=0) + rate * len(gradients)
    error = np.abs(got.astype(np.float64) - expected[1:])
    assert (error <= 1e-6 * size).all(), (error / size).max()


def clip_each(norm):
    """Return the link that clips each leaf to a norm by itself."""
    return optax.stateless_with_tree_map(
        lambda g, _: optax.projections.projection_l2_ball(g, norm)
    )


def recorded(library):
    """Return a library's recorded cases and arrays."""
    overview = json.loads((DATA / library / "cases.json").read_text())
    assert overview["steps"] == STEPS
    with np.load(DATA / library / "runs.npz") as file:
        return overview, dict(file)


TENSORFLOW, TENSORFLOW_RUNS = recorded("tensorflow")
PADDLE, PADDLE_RUNS = recorded("paddle")
MXNET, MXNET_RUNS = recorded("mxnet")
NAMES = {
    "legacy": "TensorFlow 2, `tf_keras.optimizers.legacy.Adamax`",
    "sparse": "the same, given `tf.IndexedSlices`",
    "tf_keras": "Keras 2, `tf_keras.optimizers.Adamax`",
}
REPOSITORIES = {
    "efficient_vdvae_jax": "Efficient-VDVAE in JAX",
    "efficient_vdvae_torch": "Efficient-VDVAE in PyTorch, NVAE",
    "fairseq": "fairseq, `--optimizer adamax`",
    "fairseq_uncorrected": "fairseq, with `--no-bias-correction`",
    "glow": "Glow, `optim.adamax`",
    "lasagne": "Lasagne, `lasagne.updates.adamax`",
    "mt_dnn": "mt-dnn (BERT)",
    "nvae": "Efficient-VDVAE in PyTorch, NVAE",
}


def test_recordings_are_those_that_the_page_names():
    assert TENSORFLOW["tensorflow"] == TENSORFLOW["tf_keras"] == "2.21.0"
    assert PADDLE["paddle"] == "3.3.0"
    assert MXNET["mxnet"] == "1.9.1"
    for overview in (TENSORFLOW, PADDLE, MXNET):
        assert f"recorded, {len(overview['cases'])} runs" in PAGE.read_text()


@pytest.mark.parametrize("leaf", [0, 1])
@pytest.mark.parametrize("case", TENSORFLOW["cases"])
def test_tensorflow(case, leaf):
    optimizer = TENSORFLOW["cases"][case]["optimizer"]
    settings = TENSORFLOW["cases"][case]["settings"]
    if optimizer == "legacy" and TENSORFLOW["cases"][case]["sparse"]:
        optimizer = "sparse"
    rate, decay = settings["learning_rate"], settings.get("decay")
    tx = ours(
        NAMES[optimizer],
        lr=(lambda count: rate / (1 + decay * count)) if decay else rate,
        b1=settings["beta_1"],
        b2=settings["beta_2"],
        eps=settings["epsilon"],
        weight_decay=settings.get("weight_decay", 0.0),
    )
    if "clipnorm" in settings:
        tx = optax.chain(clip_each(settings["clipnorm"]), tx)
    history = TENSORFLOW_RUNS[f"{case}/params_{leaf}"]
    gradients = TENSORFLOW_RUNS[f"{case}/grads_{leaf}"]
    assert_follows(tx, history[0], gradients, history)


@pytest.mark.parametrize("leaf", [0, 1])
@pytest.mark.parametrize("case", PADDLE["cases"])
def test_paddle(case, leaf):
    settings = PADDLE["cases"][case]
    tx = ours(
        "PaddlePaddle, `paddle.optimizer.Adamax`",
        lr=settings["learning_rate"],
        b1=settings["beta1"],
        b2=settings["beta2"],
        eps=settings["epsilon"],
        weight_decay=settings.get("weight_decay", 0.0),
    )
    if "clip_norm" in settings:
        tx = optax.chain(clip_each(settings["clip_norm"]), tx)
    history = PADDLE_RUNS[f"{case}/params_{leaf}"]
    gradients = PADDLE_RUNS[f"{case}/grads_{leaf}"]
    assert_follows(tx, history[0], gradients, history)
    _, state = trajectory(tx, history[0], gradients)
    for field, word in [("mu", "moment"), ("nu", "inf_norm")]:
        np.testing.assert_allclose(
            optax.tree_utils.tree_get(state, field),
            PADDLE_RUNS[f"{case}/{word}_{leaf}"],
            rtol=1e-6,
            atol=1e-6 * np.abs(gradients).max(),
        )


def test_epsilon_of_paddle_is_in_a_place_of_its_own():
    # With eps inside or outside instead, the recorded run is missed by far.
    settings = PADDLE["cases"]["epsilon"]
    history = PADDLE_RUNS["epsilon/params_0"]
    hyper = dict(
        lr=settings["learning_rate"],
        b1=settings["beta1"],
        b2=settings["beta2"],
        eps=settings["epsilon"],
    )
    for name in ("PyTorch, `torch.optim.Adamax`", NAMES["legacy"]):
        got, _ = trajectory(
            ours(name, **hyper), history[0], PADDLE_RUNS["epsilon/grads_0"]
        )
        assert np.abs(got - history[1:]).max() > 0.01


@pytest.mark.parametrize("leaf", [0, 1])
@pytest.mark.parametrize("case", MXNET["cases"])
def test_mxnet(case, leaf):
    settings = MXNET["cases"][case]
    hyper = dict(
        lr=settings["learning_rate"],
        b1=settings["beta1"],
        b2=settings["beta2"],
        weight_decay=settings.get("wd", 0.0),
    )
    if clip := settings.get("clip_gradient"):
        tx = NAMESPACE["mxnet_adamax"](**hyper, clip_gradient=clip)
    else:
        tx = ours("MXNet, `mx.optimizer.Adamax`", **hyper)
    history = MXNET_RUNS[f"{case}/params_{leaf}"]
    assert_follows(tx, history[0], MXNET_RUNS[f"{case}/grads_{leaf}"], history)


def test_paper():
    # MXNet's rule without its decay. The float64 loop is in `test_paper.py`.
    for case, settings in MXNET["cases"].items():
        if settings.keys() == {"learning_rate", "beta1", "beta2"}:
            tx = ours(
                "the paper, Algorithm 2",
                lr=settings["learning_rate"],
                b1=settings["beta1"],
                b2=settings["beta2"],
            )
            history = MXNET_RUNS[f"{case}/params_0"]
            assert_follows(tx, history[0], MXNET_RUNS[f"{case}/grads_0"], history)


@pytest.mark.parametrize("leaf", [0, 1])
@pytest.mark.parametrize("case", ["defaults", "betas", "others"])
@pytest.mark.parametrize("rule", REPOSITORIES)
def test_repositories(rule, case, leaf):
    overview, runs = recorded(f"repositories/{rule}")
    settings = overview["cases"][case]
    tx = ours(REPOSITORIES[rule], **settings)
    if rule == "glow" and settings["weight_decay"]:
        # Its decay is a factor, recorded at 1 - weight_decay.
        decay = optax.add_decayed_weights(-settings["weight_decay"])
        tx = optax.chain(tx, decay)
    history = runs[f"{case}/params_{leaf}"]
    assert_follows(tx, history[0], runs[f"{case}/grads_{leaf}"], history)


@pytest.mark.parametrize("eps", [1e-7, 1e-2])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_keras(eps, weight_decay):
    os.environ["KERAS_BACKEND"] = "jax"
    keras = pytest.importorskip("keras")
    gradients = random_gradients((5, 3), STEPS).astype(np.float32)
    variable = keras.Variable(np.ones((5, 3), np.float32))
    optimizer = keras.optimizers.Adamax(
        0.05, 0.8, 0.95, eps, weight_decay=weight_decay or None
    )
    history = [np.ones((5, 3), np.float32)]
    for gradient in gradients:
        optimizer.apply([jnp.asarray(gradient)], [variable])
        history.append(np.asarray(variable))
    tx = ours(
        "Keras 3, `keras.optimizers.Adamax`",
        lr=0.05,
        b1=0.8,
        b2=0.95,
        eps=eps,
        weight_decay=weight_decay,
    )
    assert_follows(tx, history[0], gradients, np.stack(history))


def test_every_line_has_a_test():
    elsewhere = {
        "PyTorch, `torch.optim.Adamax`": "torch",
        "MindSpore, `experimental.optim.Adamax`": "mindspore",
        "MindSpore, `nn.AdaMax`": "mindspore",
        "Optax, `adamax`": "optax",
        "Optax, `adamaxw`": "optax",
    }
    for test in elsewhere.values():
        assert (ROOT / f"tests/numbers/test_{test}.py").is_file()
    here = {*NAMES.values(), *REPOSITORIES.values(), *elsewhere}
    here |= {"the paper, Algorithm 2", "Keras 3, `keras.optimizers.Adamax`"}
    here |= {"PaddlePaddle, `paddle.optimizer.Adamax`", "MXNet, `mx.optimizer.Adamax`"}
    assert set(LINES) == here
