"""What `trtgate explain` prints, and the page of the documentation that has the same texts.

`python -m trtgate.commands.explanation_texts > docs/failures.md` writes that page.
"""

from __future__ import annotations

import difflib

from ..common.errors import TrtgateError
from ..common.explanations import Explanation
from ..common.text_columns import TextTable

INTRODUCTION = """\
# Failures and what to do about them

If a test fails, a case is skipped or a run ends red, the sentence that says so ends with a name, such as
`(docs: underpowered)`. This page has a section for each name. `trtgate explain NAME` prints the same section without a
network, and `trtgate explain` lists all names. The page is made by
`python -m trtgate.commands.explanation_texts > docs/failures.md`.

In the commands CASE is the id of a case, such as `resnet18-dynamo-fp16-b1-mbs5`, and MODEL is its model, `resnet18`.
OLD, NEW and RUN.json are files. pytest's `-k` takes no `@`, which ids of dynamic cases have: name the part before it.
"""


def listed() -> TextTable:
    """Return all names, each with what it means in a sentence."""
    return TextTable([(str(one), one.summary) for one in Explanation], left=(0, 1), whole=(0,), titled=False)


def text_of(name: str) -> str:
    """Return the Markdown of an explanation, with links from the root of the repository.

    Raises TrtgateError, with the nearest name, for an unknown one.
    """
    try:
        found = Explanation(name)
    except ValueError:
        close = difflib.get_close_matches(name, list(Explanation), n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}? " if close else ""
        raise TrtgateError(f"no explanation is called {name!r}: {hint}`trtgate explain` lists all names") from None
    return found.text.replace("](", "](docs/")


def page() -> str:
    """Return `docs/failures.md`."""
    sections = [f"#{one.text}".rstrip() for one in Explanation]
    names = [f"* [{one}](#{one}): {one.summary}" for one in Explanation]
    return "\n\n".join([INTRODUCTION.rstrip(), "\n".join(names), *sections]) + "\n"


if __name__ == "__main__":
    print(page(), end="")
