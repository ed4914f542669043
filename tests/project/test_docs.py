"""The examples of README and guides run, and the lists of pages and names are complete.

Each page runs in one namespace, each block of the README in its own. Blocks
of `>>>` lines are doctests; any other block prints what its comments `# prints: …` say.
`make docs` checks that the pages build without a warning.
"""

import contextlib
import functools
import inspect
import io
import re
import tomllib
from pathlib import Path
from typing import Any

import chex
import jax.numpy as jnp
import pytest
import yaml
from flax import nnx
from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

import adamax_optax as ao

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
# test_orbax.py runs checkpointing.md, and looks at what it computes.
INDEX = (ROOT / "docs" / "index.md").read_text()
RUN_HERE = [page for page in PAGES if page.name != "checkpointing.md"]


class Parser(PythonCodeBlockParser):
    """Fenced blocks: doctests if they begin with a prompt, code with output if not."""

    def __init__(self, language: str) -> None:
        super().__init__()
        self.codeblock_parser = CodeBlockParser(language, prints)


def prints(example: Example) -> None:
    """Run a block and compare its output with its comments."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        PythonEvaluator()(example)
    expected = re.findall(r"# prints: (.*)$", example.parsed, re.M)
    assert out.getvalue().splitlines() == expected


SYBIL = Sybil([Parser("python"), Parser("pycon")])


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("page", RUN_HERE, ids=lambda page: page.name)
def test_examples_run(page):
    for example in SYBIL.parse(page):
        if page == README:
            example.namespace.clear()  # its blocks are pasted one by one
        example.evaluate()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_example_is_missed(page):
    # Sybil looks into fences of these two languages, and only at their first lines.
    prompts = re.findall(r"^ *>>> ", page.read_text(), re.M)
    doctests = [e for e in SYBIL.parse(page) if not isinstance(e.parsed, str)]
    assert len(doctests) == len(prompts)


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name
)
def test_tests_that_a_page_names_exist(page):
    names = re.findall(r"`(tests/[\w/]+\.py)`", page.read_text())
    assert [name for name in names if not (ROOT / name).is_file()] == []


def test_the_readme_is_short_and_has_examples():
    assert len(README.read_text().splitlines()) <= 140
    assert list(SYBIL.parse(README))


@pytest.mark.usefixtures("lenient_promotion")
def test_both_sides_of_the_readme_s_diff_give_the_same_updates():
    (diff,) = re.findall(r"^```diff\n(.*?)^```$", README.read_text(), re.M | re.S)
    updates = []
    for drop in "+-":
        lines = [line[1:] for line in diff.splitlines() if not line.startswith(drop)]
        namespace: dict[str, Any] = {}
        exec("\n".join(lines), namespace)
        updates.append(namespace["updates"])
    chex.assert_trees_all_close(*updates, rtol=1e-6)


def test_both_sides_of_the_readme_s_port_run():
    torch = pytest.importorskip("torch")
    rows = re.findall(r"^\| `(.*)` \| `(.*)` \|$", README.read_text(), re.M)
    theirs = {"optim": torch.optim, "Net": lambda: torch.nn.Linear(3, 1)}
    ours = {"ao": ao, "nnx": nnx, "Net": functools.partial(nnx.Linear, 3, 1)}
    for side, lines, ones in (
        (theirs, [row[0] for row in rows], torch.ones(4, 3)),
        (ours, [row[1] for row in rows], jnp.ones((4, 3))),
    ):
        side |= {"x": ones, "loss_fn": lambda net, x: ((net(x) - 1) ** 2).mean()}
        exec("\n".join(lines), side)
    assert ours["opt"].param_groups[0]["lr"] == 0.05
    assert ours["opt"].state_dict()["state"][0]["step"] == 1
    assert theirs["opt"].state_dict()["state"][0]["step"] == 1


def test_index_lists_every_notebook():
    names = sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb"))
    for pattern in (
        r"^notebooks/(\w+)$",  # the table of contents
        r"^:link: notebooks/(\w+)$",  # the gallery
        r"^:img-top: thumbnails/(\w+)\.png$",
    ):
        assert sorted(re.findall(pattern, INDEX, re.M)) == names
    thumbnails = (ROOT / "docs" / "thumbnails").glob("*.png")
    assert sorted(path.stem for path in thumbnails) == names


def test_index_links_every_guide():
    guides = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert guides <= set(re.findall(r"\]\(([^)#]+)", INDEX))


def test_the_reference_has_every_public_name_once():
    modules = {name for name in ao.__all__ if inspect.ismodule(getattr(ao, name))}
    public = [f"adamax_optax.{name}" for name in ao.__all__]
    for module in modules - {"compat"}:  # its class is in the package itself
        names = getattr(ao, module).__all__
        public += [f"adamax_optax.{module}.{name}" for name in names]
    pages = (ROOT / "docs" / "reference").glob("*.rst")
    listed = re.findall(
        r"^\.\. auto(?:module|class|function):: (adamax_optax\..+)$",
        "\n".join(page.read_text() for page in pages),
        re.M,
    )
    assert sorted(listed) == sorted(public)


def test_supported_versions_are_those_of_pyproject_and_ci():
    rows = dict(re.findall(r"^\| (\w+)(?: \(optional\))? \| (\d.*?) \|", INDEX, re.M))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [
        *project["dependencies"],
        *project["optional-dependencies"]["flax"],
        f"Python{project['requires-python']}",
    ]
    lowest = dict(requirement.split(">=") for requirement in requirements)
    assert {name: row.split()[0] for name, row in rows.items()} == {
        name: version.removesuffix(".0") for name, version in lowest.items()
    }

    ci = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    tested = [
        python
        for job in ci["jobs"].values()
        for python in job.get("strategy", {"matrix": {"python": []}})["matrix"][
            "python"
        ]
    ]
    assert rows["Python"] == f"{tested[0]} to {tested[-1]}"
    classifiers = [f"Programming Language :: Python :: {python}" for python in tested]
    assert set(classifiers) <= set(project["classifiers"])


def test_read_the_docs_installs_what_make_docs_does():
    config = yaml.safe_load((ROOT / ".readthedocs.yaml").read_text())
    installed = re.findall(
        r"--group (\w+)", " ".join(config["build"]["jobs"]["install"])
    )
    (target,) = re.findall(
        r"^docs: .*installed-(.*)$", (ROOT / "Makefile").read_text(), re.M
    )
    assert installed == target.split(",")
    assert (ROOT / config["sphinx"]["configuration"]).is_file()
