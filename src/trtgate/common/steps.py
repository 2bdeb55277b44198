"""What takes long tells what begins."""

from __future__ import annotations

from collections.abc import Callable

OnStep = Callable[[str], None]
"""Is told the name of the step that begins, and shows it."""
