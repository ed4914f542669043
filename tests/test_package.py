"""The package as a whole: its names, its imports, its documentation."""

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import adamax_optax as ao

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "adamax_optax").rglob("*.py"))
MODULES = ["adamax_optax"] + sorted(
    module.name for module in pkgutil.walk_packages(ao.__path__, "adamax_optax.")
)


def test_every_public_name_exists_and_is_documented():
    assert ao.__all__ == sorted(ao.__all__)
    for name in ao.__all__:
        assert inspect.getdoc(getattr(ao, name)), name


def test_every_public_function_is_documented_in_full():
    for name in ao.__all__:
        function = getattr(ao, name)
        if not inspect.isfunction(function):
            continue
        documentation = inspect.getdoc(function)
        for section in ["Args:", "Returns:", "Raises:", "Example:"]:
            assert section in documentation, (name, section)
        for parameter in inspect.signature(function).parameters:
            assert re.search(rf"^\s+{parameter}: ", documentation, re.M), (
                name,
                parameter,
            )


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_private_names_of_other_libraries(path):
    assert not re.search(r"\b(optax|jax|flax)\._src\b", path.read_text())


def test_every_module_has_its_tests():
    tests = {path.name for path in (ROOT / "tests").glob("test_*.py")}
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    for name in MODULES[1:]:
        _, module, *deeper = name.split(".")
        if not deeper:
            named = f"test_{module.removeprefix('_')}.py"
            assert named in tests or module in folders


def test_import_needs_the_runtime_dependencies_only():
    # In a process of its own: here flax and torch may be loaded already.
    code = """
import sys
import adamax_optax
optional = {"flax", "torch", "mindspore", "keras", "equinox", "orbax", "sklearn"}
optional |= {"matplotlib"}
print(sorted(optional & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_version_and_changelog_agree():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    released = re.search(r"^## \[(\d[^\]]*)\]", changelog, re.M)
    if ".dev" in ao.__version__:
        assert "## [Unreleased]" in changelog
    else:
        assert released and released[1] == ao.__version__
