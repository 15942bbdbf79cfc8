"""When a search is near enough to its end: the rule of ``effort="normal"``."""

from __future__ import annotations

SHARE = 0.01  # of what was gained since random, that a longer search may still gain
SLOWEST = 0.9  # gain of a half over that of the half before, at most: beyond, the estimate would be of no use
EARLIEST = 8  # passes
FREE = 5_000_000_000  # numbers C²·D that are looked at in half a second, whatever the rule says


class NearTheEnd:
    """Whether what is left of a descent is below one percent of what was gained since random points.

    The universal lower bound alone cannot tell: at most sizes no search comes within 10 % of it. So a descent is near
    its end when what is left above the bound is below the share, or when both of these are, with L(k) its lowest value
    by pass k: the gain of the last half of its passes, L(k/2) - L(k), which is what is left where L falls like 1/k; and
    that gain times ρ/(1 - ρ), ρ = (L(k/2) - L(k)) / (L(k/4) - L(k/2)), what is left where it falls like any power of
    k. Descents from random points fall faster than 1/k beyond their first few passes, or stay on a plateau and fall
    again: against these the rule waits for as many passes as take half a second.
    """

    def __init__(self, num_classes: int, dim: int, random: float, bound: float) -> None:
        self.random, self.bound = random, bound
        self.earliest = max(EARLIEST, FREE // (num_classes**2 * dim))
        self.passes: list[float] = []
        self.lowest: list[float] = []

    def __call__(self, passes: float, value: float) -> bool:
        """Takes L_uni after so many passes of the descent; whether to stop."""
        self.passes.append(passes)
        self.lowest.append(min(value, self.lowest[-1]) if self.lowest else value)
        small = SHARE * (self.random - value)
        if value - self.bound <= SHARE * (self.random - self.bound):
            return True
        return passes >= self.earliest and self._left() <= small

    def _left(self) -> float:
        passes, value = self.passes[-1], self.lowest[-1]
        half = self._by(passes / 2)
        late, early = half - value, self._by(passes / 4) - half
        ratio = min(late / early, SLOWEST) if early > 0 else SLOWEST
        return late * max(1.0, ratio / (1 - ratio))

    def _by(self, passes: float) -> float:
        """The lowest value by then."""
        return next(low for at, low in zip(self.passes[::-1], self.lowest[::-1], strict=True) if at <= passes)
