"""The comparison of optimizers runs, and takes the best learning rate of each."""

import importlib
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("when_to_use")


def test_the_best_learning_rate_has_the_least_mean_loss(script):
    assert script.best([[3.0, 1.0], [1.0, 1.5], [1.0, math.nan]]) == 1
    assert script.best([[math.nan], [math.inf]]) == 1


def test_bytes_are_those_of_the_state(script):
    optimizer, params = script.OPTIMIZERS["Adamax"], {"w": jnp.ones((64, 8))}
    assert 8 <= script.state_bytes(optimizer, params) <= 8.05


def test_rows_of_the_factorisation_follow_zipfs_law(script):
    task = script.factorisation()
    params = jax.eval_shape(task.init, jax.random.key(0))
    batch = jax.ShapeDtypeStruct((task.batch,), jnp.int32)
    gradients = jax.eval_shape(jax.grad(task.loss), params, batch)
    assert jax.tree.structure(gradients) == jax.tree.structure(params)
    params = task.init(jax.random.key(0))
    g = jax.grad(task.loss)(params, jnp.arange(task.batch))
    for rows in g:  # most rows wait
        assert 0.01 < np.asarray(rows != 0).any(axis=1).mean() < 0.06


@pytest.mark.slow
@pytest.mark.usefixtures("lenient_promotion")
def test_quick_run(script, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- figures: begin --><!-- figures: end -->\nafter\n")
    script.main(["--quick", "--out", str(tmp_path), "--page", str(page)])
    results = json.loads((tmp_path / "when_to_use.json").read_text())
    assert list(results["tasks"]) == ["MLP", "factorisation"]
    for task in results["tasks"].values():
        for found in task["optimizers"].values():
            assert np.shape(found["losses"]) == (len(script.RATES), 2)
            assert found["microseconds"] > 0
    assert script.markdown(results) in page.read_text()
    capsys.readouterr()
    script.main(["--redraw", "--out", str(tmp_path)])
    assert "Adamax, lazy rows" in capsys.readouterr().out


def test_page_shows_the_committed_results(script):
    results = json.loads((BENCHMARKS / "results" / "when_to_use.json").read_text())
    assert not results["about"]["quick"]
    assert list(results["tasks"]) == list(script.ALL_TASKS)
    pages = importlib.import_module("report")
    page = (ROOT / "docs" / "when_to_use.md").read_text()
    figures = page.partition(pages.BEGIN)[2].partition(pages.END)[0]
    assert figures.strip() == script.markdown(results).strip()


def test_page_says_what_was_measured(script):
    """Adam ends lower on all tasks, and lazy rows higher than dense ones."""
    results = json.loads((BENCHMARKS / "results" / "when_to_use.json").read_text())
    for task in results["tasks"].values():
        losses = {
            title: np.mean(found["losses"][script.best(found["losses"])])
            for title, found in task["optimizers"].items()
        }
        assert losses["Adam"] < losses["Adamax"]
        assert losses["Adam"] < losses["adamaxw"]
        for title in ("Adam", "Adamax"):
            assert losses.get(f"{title}, lazy rows", math.inf) > losses[title]
    text = " ".join((ROOT / "docs" / "when_to_use.md").read_text().split())
    assert "On all five tasks Adam ends lower" in text
    task = results["tasks"]["factorisation"]["optimizers"]
    adam, adamax, lazy = (
        round(task[title]["microseconds"])
        for title in ("Adam", "Adamax", "Adamax, lazy rows")
    )
    assert f"Adamax takes {adamax} µs and Adam {adam}." in text
    assert f"{lazy} µs instead of Adamax's {adamax}." in text
