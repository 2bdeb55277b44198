"""What `trtgate explain` prints."""

from __future__ import annotations

import difflib

from ..common.errors import TrtgateError
from ..common.explanations import Explanation
from ..common.text_columns import aligned


def listed() -> list[str]:
    """Return all names, each with what it means in a sentence."""
    return aligned([(str(one), one.summary) for one in Explanation], left=(0, 1))


def text_of(name: str) -> str:
    """Return the Markdown of an explanation, with links from the root of the repository.

    Raises TrtgateError, with the nearest name, for an unknown one.
    """
    try:
        found = Explanation(name)
    except ValueError:
        close = difflib.get_close_matches(name, list(Explanation), n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}? " * bool(close)
        raise TrtgateError(f"no explanation is called {name!r}: {hint}`trtgate explain` lists all names") from None
    return found.text.replace("](", "](docs/")
