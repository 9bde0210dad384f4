"""How much each caller may post: token buckets, by the caller's key (`helmd.web.auth.roles.Identity.key`)."""

from collections import OrderedDict

MOST_NAMES = 1000


class Rates:
    """RATE entries a second for each name, and BURST of them at once. Times are seconds of a monotonic clock.

    What was accepted counts in full: a batch larger than a burst is treated like several small ones.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        # How much a name may still post, and when that was so; without one it is a whole burst.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def adopt(self, rate: float, burst: float) -> None:
        """Use these from now on."""
        self._rate, self._burst = rate, burst

    def pause(self, name: str, now: float) -> float:
        """Return seconds from NOW until NAME has nothing to wait for; 0 when it has not now."""
        left = self._now(name, now)
        return 0.0 if left > 0 else max(-left, 1.0) / self._rate

    def take(self, name: str, entries: int, now: float) -> None:
        """Note that NAME posted that many. The debt never exceeds a burst, so that nobody is limited without end."""
        self._left[name] = (max(self._now(name, now) - entries, -self._burst), now)
        self._left.move_to_end(name)
        if len(self._left) > MOST_NAMES:
            self._left.popitem(last=False)

    def _now(self, name: str, now: float) -> float:
        left, at = self._left.get(name, (self._burst, now))
        return min(self._burst, left + (now - at) * self._rate)
