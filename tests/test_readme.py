"""Every Python block of the README runs, in order, in one fresh namespace each."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)


def test_there_are_blocks():
    assert BLOCKS


@pytest.mark.usefixtures("lenient_promotion")
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number, capsys):
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), {})
    # What a block prints stands behind it, as `# prints: …`.
    expected = re.findall(r"# prints: (.*)$", BLOCKS[number], re.M)
    printed = capsys.readouterr().out.splitlines()
    assert printed == expected


def test_it_is_short():
    assert len(README.splitlines()) <= 150
