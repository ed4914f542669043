"""The notebooks run from a clean kernel, and what their titles say is so.

Each is executed as it stands, in its folder; then its `CLAIMS` run in the same kernel.
"""

import textwrap
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"

# What the prose and the titles of the figures promise, in the notebook's own variables.
CLAIMS = {
    "quickstart": """
        assert accuracies[-1] > 0.95
        assert losses[:44].mean() > 10 * losses[-44:].mean()
        # "The norms span decades"
        assert norms["Dense_0"]["kernel"].max() > 100 * norms["Dense_0"]["kernel"].min()
    """,
    "inside_adamax": """
        assert error < 1e-5
        left = {name: banana(path[-1]) for name, path in paths.items()}
        assert left["Adamax"] < 1e-3 < 1e-2 < left["SGD"]
        assert np.abs(steps).max() < 1.01 * best["Adamax"]
        assert np.isclose(feed(ao.scale_by_adamax(), noise)[2][793], 10, rtol=1e-3)
        assert np.isclose(inside[-1], 0.01)
        assert np.isclose(inside[30], bare[30], rtol=0.011)
    """,
    "coming_from_mindspore_and_pytorch": """
        assert len(curves) == 1 + HAS_TORCH
        for losses in curves.values():
            assert losses.shape == here.shape == (STEPS,)
            np.testing.assert_allclose(losses, here, rtol=1e-5)
        # "Decoupled decay goes its own way from the second step."
        assert abs(decoupled[0] / here[0] - 1) < 1e-6
        assert abs(decoupled[1] / here[1] - 1) > 1e-3
        np.testing.assert_allclose(continued, rest, rtol=1e-5)
        assert np.abs(restarted[:20] / rest[:20] - 1).max() > 0.05
        assert optimizer.param_groups[0]["lr"] < 1e-3
    """,
    "low_precision": """
        assert 30 < times < 60
        last = {k: np.median(np.abs(u / exact - 1)[-1]) for k, u in histories.items()}
        assert last["ours in bfloat16, 4 bytes"] < 0.004
        assert last["ours in uint16, 2 bytes"] < 0.1
        assert np.abs(ratios.mean() - 0.3) < 3e-4 < np.abs(ratios - 0.3).min()
        end = {name: smooth(losses)[1][-1] for name, losses in curves.items()}
        for name in ("ours in bfloat16, 4 bytes", "ours in uint16, 2 bytes"):
            assert abs(end[name] / end["float32, 8 bytes"] - 1) < 0.15
        assert end["naive bfloat16, 4 bytes"] > 1.3 * end["float32, 8 bytes"]
        wide, nearest, random = (smooth(losses)[1][-1] for losses in runs.values())
        assert abs(random / wide - 1) < 0.1 and nearest > 3 * wide
        assert size(state) < 2_000_100
    """,
    "sweeps_and_meta_gradients": """
        assert finals.shape == (64,) and losses.shape == (64, STEPS)
        assert finals[0] > 5 * finals.min() and finals[-1] > 5 * finals.min()
        assert train(jnp.exp(walk[-1]))[1] < 1.2 * finals.min()
        # "It warms up, and cools down"
        assert learned[1:-1].max() > max(learned[0], learned[-1])
        assert after < 0.9 * before
    """,
    "many_devices": """
        assert len(jax.devices()) == 8
        for way, (_, _, losses) in runs.items():
            rtol = 0.03 if "uint16" in way else 1e-5
            np.testing.assert_allclose(losses, alone, rtol=rtol)
        copied_params, copied_state = sizes["all copied"]
        assert abs(sizes["state cut"][1] / copied_state - 1 / 8) < 1e-3
        assert abs(sizes["all cut"][0] / copied_params - 1 / 8) < 1e-3
        assert abs(sizes["all cut, uint16 state"][1] / copied_state - 1 / 32) < 1e-3
        assert same
    """,
}


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)


def test_every_notebook_has_its_claims():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(CLAIMS)


@pytest.mark.parametrize("name", CLAIMS)
def test_file_is_clean(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    for cell in notebook.cells:
        assert not cell.metadata
        if cell.cell_type == "code":
            assert not cell.outputs, cell.id
            assert cell.execution_count is None, cell.id


@pytest.mark.parametrize("name", CLAIMS)
def test_cells_are_short_and_introduced(name):
    before = None
    for cell in read(name).cells:
        if cell.cell_type == "code":
            assert before == "markdown", f"no prose before the cell {cell.id}"
            assert len(cell.source.splitlines()) <= 40, cell.id
        before = cell.cell_type


@pytest.mark.slow
@pytest.mark.parametrize("name", CLAIMS)
def test_runs_and_keeps_its_promises(name, monkeypatch):
    # Most of the time is compilation: kept for the next run, and for `make docs`.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(ROOT / "out" / "jax_cache"))
    # Idle threads of PyTorch would keep other tests' cores busy.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = read(name)
    claims = nbformat.v4.new_code_cell(textwrap.dedent(CLAIMS[name]), id="claims")
    notebook.cells.append(claims)
    NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": FOLDER}}
    ).execute()

    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        warnings = [o.text for o in cell.outputs if o.get("name") == "stderr"]
        assert not warnings, cell.id
        pictures = ["image/png" in o.get("data", {}) for o in cell.outputs]
        # One picture and nothing else, not the repr of an axis either.
        assert pictures == [True] or not cell.id.startswith("draw-"), cell.id
