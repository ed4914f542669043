"""The loops of `examples/ports`: PyTorch's and ours, from equal weights and data.

Each takes 55 to 120 steps, in float32 and in float64. All losses and the trained
weights are compared; only rounding errors may differ. The largest, and the tolerance:

                  float32             float64
    losses    2.1e-7  (2e-6)     5.9e-16  (1e-14)    relative to 1 + |loss|
    weights   2.0e-6  (2e-5)     2.6e-15  (1e-13)    absolute; they are up to 1.2

That weight is BERT's key bias, with ten times the error of any other. The softmax
cancels it, so its gradient is nothing but rounding errors.
"""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from adamax_optax import interop

torch = pytest.importorskip("torch")
pytest.importorskip("flax")

PORTS = Path(__file__).parents[2] / "examples" / "ports"
PAIRS = sorted(path.stem.removesuffix("_jax") for path in PORTS.glob("*_jax.py"))
LOSSES = {"float32": 2e-6, "float64": 1e-14}
WEIGHTS = {"float32": 2e-5, "float64": 1e-13}

pytestmark = [
    pytest.mark.usefixtures("lenient_promotion"),
    # Two loops step the scheduler first, as the code that they follow does.
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step"),
]


@pytest.fixture(scope="module")
def load():
    """Import a file of the folder, as `python examples/ports/vae_jax.py` finds it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the networks are tiny
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PORTS)
        yield importlib.import_module
    torch.set_num_threads(threads)


@pytest.fixture(params=[pytest.param("float32", marks=pytest.mark.slow), "float64"])
def dtype(request):
    if request.param == "float64":
        request.getfixturevalue("x64")
    return request.param


def check_losses(ours, theirs, dtype):
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours, theirs, LOSSES[dtype], LOSSES[dtype])


def check_weights(ours, theirs, dtype):
    """Compare arrays by name, both in PyTorch's layout."""
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        expected = theirs[name].detach().numpy()
        assert array.dtype == expected.dtype == dtype
        np.testing.assert_allclose(array, expected, 0, WEIGHTS[dtype], err_msg=name)


def check_model(load, model, theirs, dtype):
    check_weights(in_torch_layout(load, model), dict(theirs.named_parameters()), dtype)


def in_torch_layout(load, model):
    torch_like = load("torch_like")
    return {
        torch_like.torch_name(name): interop.kernels_from_flax(name, np.asarray(p))
        for name, p in torch_like.named_parameters(model)
    }


def test_vae(load, dtype, tmp_path):
    vae_jax, vae_torch = load("vae_jax"), load("vae_torch")
    # Ours stops in the middle and starts again from its file; PyTorch's does not.
    first, *_ = vae_jax.train(tmp_path, epochs=4, dtype=dtype)
    rest, model, ema_model = vae_jax.train(tmp_path, resume=True, dtype=dtype)
    expected, torch_model, torch_ema_model = vae_torch.train(tmp_path, dtype=dtype)

    losses, skipped = zip(*first, *rest, strict=True)
    expected_losses, expected_skipped = zip(*expected, strict=True)
    check_losses(losses, expected_losses, dtype)
    assert skipped == expected_skipped
    assert len(skipped) - sum(skipped) >= 50
    assert sum(skipped) >= 5
    check_model(load, model, torch_model, dtype)
    check_model(load, ema_model, torch_ema_model, dtype)


def test_vae_resumed_in_the_middle_has_the_same_bits(load, dtype, tmp_path):
    vae_jax = load("vae_jax")
    vae_jax.train(tmp_path, epochs=4, dtype=dtype)
    _, *resumed = vae_jax.train(tmp_path, resume=True, dtype=dtype)
    _, *undisturbed = vae_jax.train(tmp_path, dtype=dtype)
    for ours, theirs in zip(resumed, undisturbed, strict=True):
        jax.tree.map(
            np.testing.assert_array_equal,
            in_torch_layout(load, ours),
            in_torch_layout(load, theirs),
        )


@pytest.mark.slow
def test_vqa(load, dtype):
    losses, params = load("vqa_jax").train(dtype=dtype)
    expected_losses, torch_params = load("vqa_torch").train(dtype=dtype)
    assert len(losses) >= 50
    check_losses(losses, expected_losses, dtype)
    check_weights(params, torch_params, dtype)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [[], ["--betas", "0.8", "0.99", "--weight-decay", "0.1", "--accumulation", "1"]],
    ids=["defaults", "options"],
)
def test_bert(load, dtype, options):
    losses, model = load("bert_jax").train(options, dtype=dtype)
    expected_losses, torch_model = load("bert_torch").train(options, dtype=dtype)
    assert len(losses) >= 2 * 50  # at most two batches a step
    check_losses(losses, expected_losses, dtype)
    check_model(load, model, torch_model, dtype)


@pytest.mark.slow
def test_frames(load, dtype):
    ours = load("frames_jax").train(dtype=dtype)
    theirs = load("frames_torch").train(dtype=dtype)
    losses, val_losses, model, groups = ours
    expected_losses, expected_val_losses, torch_model, torch_groups = theirs
    assert len(losses) >= 50
    check_losses(losses, expected_losses, dtype)
    check_losses(val_losses, expected_val_losses, dtype)
    check_model(load, model, torch_model, dtype)

    lrs = [group["lr"] for group in groups]
    assert lrs == [group["lr"] for group in torch_groups]
    assert len(lrs) == 7
    assert lrs[0] < 0.2 * 0.2 * 2e-2 * 1.01  # reduced twice or more often


def test_flow(load, dtype, tmp_path):
    flow_jax, flow_torch = load("flow_jax"), load("flow_torch")
    first, _ = flow_jax.train(tmp_path, epochs=5, dtype=dtype)
    rest, model = flow_jax.train(tmp_path, resume=True, dtype=dtype)
    expected_losses, torch_params = flow_torch.train(tmp_path, dtype=dtype)
    assert len(expected_losses) >= 50
    check_losses([*first, *rest], expected_losses, dtype)
    params = {
        f"couplings.{i}.{name}": p
        for i, coupling in enumerate(model)
        for name, p in coupling.items()
    }
    check_weights(params, torch_params, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS)
def test_both_programs_print_the_same(pair):
    theirs, ours = (
        subprocess.run(
            [sys.executable, PORTS / f"{pair}_{library}.py"],
            capture_output=True,
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},  # the networks are tiny
            text=True,
        ).stdout
        for library in ("torch", "jax")
    )
    number = r"\d+(?:\.\d+)?"
    assert re.sub(number, "", ours) == re.sub(number, "", theirs)
    printed, expected = (re.findall(number, text) for text in (ours, theirs))
    assert len(printed) >= 15
    # The last of four decimals may be rounded up in one and down in the other.
    np.testing.assert_allclose(np.float64(printed), np.float64(expected), 0, 1.1e-4)
