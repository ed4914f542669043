"""Point the relative links of a Markdown file at a repository on the web.

PyPI shows the README, but resolves no relative link in it. The release workflow, which
knows the repository and the tag, calls this before it builds::

    python .github/absolute_links.py README.md https://example.org/owner/name v0.1.0
"""

import re
import sys
from pathlib import Path

# `](target)`, and whether it ends the text of a picture: `![text](target)`.
LINK = re.compile(r"(!?)(\[[^][]*\]\()([^)\s]+)(?=[)\s])")


def absolute(text: str, repository: str, tag: str) -> str:
    """Return the text with its relative links made absolute.

    Args:
      text: Markdown whose links are relative to the root of the repository.
      repository: The address of the repository, without a slash at the end.
      tag: Which version the links shall show.
    """

    def replaced(match: re.Match) -> str:
        picture, words, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        kind = "raw" if picture else "blob"
        return f"{picture}{words}{repository}/{kind}/{tag}/{target}"

    return LINK.sub(replaced, text)


if __name__ == "__main__":
    file, repository, tag = sys.argv[1:]
    path = Path(file)
    path.write_text(absolute(path.read_text(), repository, tag))
