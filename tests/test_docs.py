"""The pages name every notebook, and the code on the first of them runs.

That they build without a warning is for `make docs` to say.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INDEX = (ROOT / "docs" / "index.md").read_text()


def test_index_lists_every_notebook():
    listed = re.findall(r"^notebooks/(\w+)$", INDEX, re.M)
    assert sorted(listed) == sorted(
        p.stem for p in (ROOT / "notebooks").glob("*.ipynb")
    )


@pytest.mark.usefixtures("lenient_promotion")
def test_code_on_the_first_page_runs():
    (block,) = re.findall(r"^```python\n(.*?)^```", INDEX, re.M | re.S)
    names = {}
    exec(compile(block, "docs/index.md", "exec"), names)
    # The first step of Adamax has the size of the learning rate.
    assert names["params"]["w"] == pytest.approx([0.05] * 3, rel=1e-5)
