"""The package as a whole: its names, its documentation, its tests, its version."""

import inspect
import pkgutil
import re
from pathlib import Path

import adamax_optax as ao

ROOT = Path(__file__).parents[2]


def test_every_public_name_exists_and_is_documented():
    assert ao.__all__ == sorted(ao.__all__)
    for name in ao.__all__:
        assert inspect.getdoc(getattr(ao, name)), name


def test_every_public_function_is_documented_in_full():
    # Of the sections there are, ruff checks that they name every argument.
    for name in ao.__all__:
        function = getattr(ao, name)
        if inspect.isfunction(function):
            for section in ["Args:", "Returns:", "Raises:", "Example:"]:
                assert section in inspect.getdoc(function), (name, section)


def test_every_module_has_its_tests():
    tests = ROOT / "tests"
    # Tested where they are used: by the state dicts and by interop.
    shared = {"_arrays", "_torch_layout"}
    for module in pkgutil.iter_modules(ao.__path__):
        name = module.name.removeprefix("_")
        if module.ispkg:
            assert any((tests / name).glob("test_*.py")), name
        elif module.name not in shared:
            assert (tests / f"test_{name}.py").is_file(), name


def test_version_and_changelog_agree():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    released = re.search(r"^## \[(\d[^\]]*)\]", changelog, re.M)
    if ".dev" in ao.__version__:
        assert "## [Unreleased]" in changelog
    else:
        assert released and released[1] == ao.__version__
