"""How often somebody may do something: so often at once, and then at a rate."""

from __future__ import annotations

import time


class Pace:
    """A token bucket that may be overdrawn: whoever comes too early is told how long to wait for their turn."""

    def __init__(self, *, per_second: float, at_once: float) -> None:
        self._rate = per_second
        self._most = at_once
        self._left = at_once
        self._at = time.monotonic()

    def take(self, amount: float = 1) -> float:
        """Take the amount; after how many seconds it counts as taken, 0 when at once."""
        self._fill()
        self._left -= amount
        return max(0.0, -self._left / self._rate)

    def wait_seconds(self) -> float:
        """How long it takes until one more is there; takes nothing."""
        self._fill()
        return max(0.0, (1 - self._left) / self._rate)

    def _fill(self) -> None:
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
