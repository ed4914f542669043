"""What a release is made of: links that hold on PyPI, one version, a valid citation."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
REPOSITORY = PROJECT["urls"]["Source"]
VERSION = "v$HFPR_VERSION"


def on_pypi(text):
    """Return Markdown with the substitutions that hatch-fancy-pypi-readme makes."""
    hook = PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    for change in hook["substitutions"]:
        text = re.sub(change["pattern"], change["replacement"], text)
    return text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[a](b.md)", f"[a]({REPOSITORY}/blob/{VERSION}/b.md)"),
        ("[a](b/c.md#d)", f"[a]({REPOSITORY}/blob/{VERSION}/b/c.md#d)"),
        ("![a\nb](c.png)", f"![a\nb]({REPOSITORY}/raw/{VERSION}/c.png)"),
        ('[a](b "title")', f'[a]({REPOSITORY}/blob/{VERSION}/b "title")'),
        ("[a](https://x.org)", "[a](https://x.org)"),
        ("[a](mailto:a@x.org)", "[a](mailto:a@x.org)"),
        ("[a](#b)", "[a](#b)"),
        ("![a](https://x.org/a.png)", "![a](https://x.org/a.png)"),
    ],
)
def test_relative_links_become_absolute(before, after):
    assert on_pypi(before) == after


def test_links_of_the_readme_lead_to_files():
    links = re.findall(r"\]\(([^)]+)\)", on_pypi(README))
    assert all(re.match(r"https?://|#", link) for link in links)
    ours = [link for link in links if link.startswith(REPOSITORY)]
    assert ours
    for link in ours:
        kind, tag, path = link.removeprefix(f"{REPOSITORY}/").split("/", 2)
        assert (ROOT / path.partition("#")[0]).exists(), link
        assert kind == ("raw" if path.endswith(".png") else "blob")
        assert tag == VERSION


def test_code_in_the_readme_stays_as_it_is():
    def code(text):
        return re.findall(r"^```.*?^```", text, re.M | re.S)

    assert code(on_pypi(README)) == code(README)


def test_addresses_are_of_one_repository():
    assert all(url.startswith(REPOSITORY) for url in PROJECT["urls"].values())


def test_version_is_in_one_place():
    assert "version" in PROJECT["dynamic"]
    assert PYPROJECT["tool"]["hatch"]["version"] == {"path": "adamax_optax/__init__.py"}


def test_citation_names_the_paper_and_the_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [
        author["name"] for author in PROJECT["authors"]
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
