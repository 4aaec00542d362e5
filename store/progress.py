"""How long loops tell how far they are."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with (done, to do)."""
