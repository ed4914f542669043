"""What a release is made of: links that hold on PyPI, one version, a valid citation."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
REPOSITORY = "https://example.org/owner/name"


@pytest.fixture(scope="module")
def absolute():
    path = ROOT / ".github" / "absolute_links.py"
    spec = importlib.util.spec_from_file_location("absolute_links", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda text: module.absolute(text, REPOSITORY, "v1.2.3")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[a](b.md)", f"[a]({REPOSITORY}/blob/v1.2.3/b.md)"),
        ("[a](b/c.md#d)", f"[a]({REPOSITORY}/blob/v1.2.3/b/c.md#d)"),
        ("![a\nb](c.png)", f"![a\nb]({REPOSITORY}/raw/v1.2.3/c.png)"),
        ('[a](b "title")', f'[a]({REPOSITORY}/blob/v1.2.3/b "title")'),
        ("[a](https://x.org)", "[a](https://x.org)"),
        ("[a](mailto:a@x.org)", "[a](mailto:a@x.org)"),
        ("[a](#b)", "[a](#b)"),
    ],
)
def test_relative_links_become_absolute(absolute, before, after):
    assert absolute(before) == after


def test_links_of_the_readme_lead_to_files(absolute):
    links = re.findall(r"\]\(([^)]+)\)", absolute(README))
    assert all(re.match(r"https?://|#", link) for link in links)
    ours = [link for link in links if link.startswith(REPOSITORY)]
    assert ours
    for link in ours:
        kind, tag, path = link.removeprefix(f"{REPOSITORY}/").split("/", 2)
        assert (ROOT / path.partition("#")[0]).is_file(), link
        assert kind == ("raw" if path.endswith(".png") else "blob")
        assert tag == "v1.2.3"


def test_code_in_the_readme_stays_as_it_is(absolute):
    def code(text):
        return re.findall(r"^```.*?^```", text, re.M | re.S)

    assert code(absolute(README)) == code(README)


def test_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"] == {"path": "adamax_optax/__init__.py"}


def test_citation_names_the_paper_and_the_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["license"] == project["license"]
    assert [a["name"] for a in citation["authors"]] == [
        a["name"] for a in project["authors"]
    ]
    assert "1412.6980" in citation["references"][0]["url"]


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name
)
def test_workflows_and_forms_are_yaml(path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_tag_is_compared_with_the_version_before_anything_is_built():
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    jobs = yaml.safe_load(text)["jobs"]
    runs = [step.get("run", "") for step in jobs["build"]["steps"]]
    check, built = (
        next(i for i, run in enumerate(runs) if word in run)
        for word in ("hatchling version", "run build")
    )
    assert check < built
    assert jobs["publish"]["needs"] == "build"
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert not re.search(r"secrets\.|password", text.replace("No password", ""))
