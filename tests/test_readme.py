"""Every Python block of README and guides runs, in one fresh namespace each.

Blocks with `>>>` are doctests, which share one namespace per page.
"""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCKS = [
    pytest.param(block, id=f"{page.name} {number}")
    for page in [README, *sorted((ROOT / "docs").glob("*.md"))]
    # Its blocks belong together: tests/integration/test_orbax.py runs them in order.
    if page.name != "checkpointing.md"
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
    )
]

DOCTESTS = [
    pytest.param(page, id=page.name)
    for page in sorted((ROOT / "docs").glob("*.md"))
    if re.search("^>>> ", page.read_text(), re.M)
]


def test_there_are_blocks():
    assert any(block.id.startswith("README.md") for block in BLOCKS)


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("block", BLOCKS)
def test_block_runs(block, capsys):
    exec(compile(block, "a block of the documentation", "exec"), {})
    # What a block prints stands behind it, as `# prints: …`.
    expected = re.findall(r"# prints: (.*)$", block, re.M)
    printed = capsys.readouterr().out.splitlines()
    assert printed == expected


def test_there_are_doctests():
    assert {case.id for case in DOCTESTS} >= {"interop.md", "porting.md"}


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("page", DOCTESTS)
def test_doctests_pass(page):
    results = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert results.attempted > 0 and results.failed == 0


def test_it_is_short():
    assert len(README.read_text().splitlines()) <= 150
