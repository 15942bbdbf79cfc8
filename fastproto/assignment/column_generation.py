"""The assignment without a C×C matrix: prices, short lists of good pairs, an exact solver on the lists, and proof.

Memory is O(C·(D + k)), with what ``passes`` keeps of a small problem. A sweep over all scores is what costs time, so
the steps are chosen to need few of them:

1. where a previous result or the row maxima may already be the answer, one sweep looks, and proves it;
2. otherwise Sinkhorn steps at falling temperatures, the first ones on a part of the rows, find prices;
3. one sweep lists the best ``LIST`` columns of each row at these prices, and the exact solver runs on the lists;
4. one sweep finds every pair that the resulting prices do not rule out. None: optimal. Otherwise these pairs join the
   lists and 3 is repeated.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fastproto.assignment.certificate import INTERRUPTED
from fastproto.assignment.scores_cpu import EVERY, Array, OfRows, Rows, Scores
from fastproto.support.cancellation import check_stop

LIST = 24  # columns on a row's list: 16 sometimes needed a second round, 32 cost more and saved nothing
LONGEST = 768  # of what is added to a list at once: doubled from LIST for rows that stay short of columns
PROOF = 16  # better columns that a sweep for proof names of a row; doubled while rows have more
PROOF_MOST = 256
# (temperature in units of std(s), one row in so many). On clustered and random means of 2,000 to 10,000 classes the
# lists then held the optimum at once; the last step still moves prices by 0.1 std, well within the width of a list.
COLD = ((1.14, 4), (0.4, 2), (0.15, 1))
WARM = ((0.4, 2), (0.15, 1))
LEAST_MASS = 0.1  # what a sample says of a column that none of its rows wants is no reason to make it much cheaper
STEPS = (2e-2, 4e-3, 8e-4, 1.6e-4, 3e-5)  # of the auction, in units of std(s)
SETTLED = 0.9  # from this share of rows with a favourite of their own on, neither Sinkhorn steps nor an auction pay
# A sample of the rows of a large problem tells whether a look at all rows can pay. Up to here their product is kept,
# in bfloat16, and the scan of all rows for a few columns is cheap.
LOOK_ROWS = 4096
LOOK_EVERY, LOOK_SHARE = 8, 0.985
PEEK_EVERY = 16  # the same for a previous result
GLANCE = 4  # columns of each row in the first look, where each row is likely to get its favourite
NEAR = 0.5  # in units of std(s): columns so far below the assigned one are listed as well
FEW = 0.4  # of the rows: so many may be wrong for the prices to be kept as they are
CENTRE = 0.5  # in units of std(s): how far prices may be moved away from their limits
TOLERANCE = 1e-9  # in units of std(s): a pair that is better by less is ruled out
TIE = 1e-11  # in units of std(s): a previous column is so much better than its equal
ROUNDING = 4e-15  # of sums in the solver, relative to the largest score
MAX_ROUNDS = 60
EXACT_ELEMENTS = 1 << 22  # scores in float64 at once, of rows with more candidates than places


Accept = Callable[[float, float, Array], bool]  # (objective, gap, prices): whether this is as good as what is sought
STILL_OPTIMAL = "its prices still prove it optimal"


class OutOfTime(Exception):
    """Ends a search; what is known so far is returned."""


@dataclass
class Found:
    """``columns`` [m]: those of the rows, then the left-over ones."""

    columns: Array
    prices: Array
    objective: float  # Σ_i s_{i,A(i)}
    gap: float
    passes: float
    reason: str
    unchanged: bool = False  # the previous result
    stopped: bool = False  # by the deadline or Ctrl-C
    interrupted: bool = False  # by Ctrl-C


@dataclass
class Proof:
    """Of an assignment and its prices: Σ_i max_j(s_ij - p_j) + Σ_j p_j - Σ_i s_{i,A(i)}, and the pairs to blame."""

    gap: float
    rows: Array
    columns: Array
    scores: Array
    crowded: bool  # some row has more such pairs


class Search:
    def __init__(
        self,
        scores: Scores,
        old: Array | None,
        prices: Array | None,
        *,
        accept: Accept | None = None,
        deadline: float | None = None,
        progress: bool = False,
    ) -> None:
        """``old`` [m] and ``prices`` [m] are of a previous result, kept where ``accept`` agrees to its certificate."""
        self.accept = accept or (lambda objective, gap, prices: False)
        self.scores, self.deadline, self.progress = scores, deadline, progress
        self.rows, self.size = scores.shape
        self.every_row = np.arange(self.rows, dtype=np.int32)
        self.warm = old is not None and prices is not None
        self.old = np.arange(self.size) if old is None else old.astype(np.int64)
        self.columns = self.old
        cold = scores.column_shift if self.rows == self.size else np.zeros(self.size)  # left-over ones cost the same
        self.prices = (cold if prices is None else prices).astype(np.float64)
        self.tie = 0.0 if old is None else TIE * scores.spread
        self.passes = 0.0
        self.last_matched = np.empty(0, np.int64), np.empty(0)  # columns and the scores of the rows with them
        self.started = time.perf_counter()

    def run(self) -> Found:
        try:
            return self.search()
        except (OutOfTime, KeyboardInterrupt) as reason:
            self.deadline = None  # the sweep for the honest gap
            interrupted = isinstance(reason, KeyboardInterrupt)
            why = INTERRUPTED if interrupted else "the time was over: the best so far"
            found = self.found(self.prove(self.columns, self.prices), why)
            return replace(found, stopped=True, interrupted=interrupted)

    def search(self) -> Found:
        found, lists, steps = self.look_at_previous() if self.warm else self.look()
        if found is not None:
            return found
        if lists is None:
            self.sinkhorn(WARM if self.warm else COLD)
            lists = self.list_columns(*self.sweep(self.prices, LIST))
        places = PROOF
        columns, row_of = self.columns.copy() if self.warm else np.full(self.size, -1), np.full(self.size, -1)
        for round_ in range(1, MAX_ROUNDS + 1):
            self.settle(lists, columns, row_of, steps if round_ == 1 else (), centre=round_ == 1)
            self.columns = columns.copy()
            proof = self.prove(self.columns, self.prices, places)
            if not len(proof.rows):
                break
            places = min(2 * places, PROOF_MOST) if proof.crowded else places
            self.say(f"round {round_}: {len(proof.rows)} pairs are better")
            if not lists.add(proof.rows, proof.columns, proof.scores + self.bonus(proof.rows, proof.columns)):
                break  # the solver knew these pairs: what is left is rounding
        return self.found(proof, f"{round_} round{'s' if round_ > 1 else ''} of lists, prices and proof")

    # --- the steps ---

    def look_at_previous(self) -> tuple[Found | None, Lists | None, tuple[float, ...]]:
        self.check_time()
        known = self.scores.recheck(self.columns[: self.rows], self.prices, PROOF)
        if known is not None:
            self.passes += 1
            gap = known[0] + self.left_over(self.columns, self.prices)
            if self.accept(known[1], gap, self.prices):
                return Found(self.columns, self.prices, known[1], gap, self.passes, STILL_OPTIMAL, True), None, ()
        own, margin = self.own(self.columns, self.prices), self.scores.margin(self.prices)
        if self.rows >= LOOK_ROWS:
            some = slice(None, None, PEEK_EVERY)
            values, _ = self.sweep(self.prices, 1, own - margin, some)
            if self.hopeless(float(np.mean(values[:, 0] > (own + margin)[some]))):
                return None, None, STEPS
        floor = own - margin - NEAR * self.scores.spread
        values, indices = self.sweep(self.prices, LIST, floor=floor)
        proof = self.prove(self.columns, self.prices, seen=(values, indices))
        found = self.found(proof, STILL_OPTIMAL)
        if self.accept(found.objective, found.gap, self.prices):
            return replace(found, unchanged=True), None, ()
        if self.hopeless(len(np.unique(proof.rows)) / self.rows):
            return None, None, STEPS
        return None, self.list_columns(values, indices, floor), ()

    def hopeless(self, wrong: float) -> bool:
        if wrong:
            self.say(f"{100 * wrong:.1f} % of the previous assignment no longer hold")
        return wrong > FEW

    def look(self) -> tuple[Found | None, Lists | None, tuple[float, ...]]:
        """Whether the favourites of the rows are the answer already, or nearly."""
        length = GLANCE
        if self.rows >= LOOK_ROWS:
            _, some = self.sweep(self.prices, 1, rows=slice(None, None, LOOK_EVERY))
            different = np.count_nonzero(self.count(some))
            if different < LOOK_SHARE * len(some):
                return None, None, STEPS
            length = GLANCE if different == len(some) else LIST
        margin = self.scores.margin(self.prices)  # a proof needs what is within twice of it, beside rounding
        values, indices = self.sweep(self.prices, length, within=3 * margin if length < LIST else None)
        wanted = self.count(indices[:, 0])
        if np.count_nonzero(wanted) < SETTLED * self.rows:
            return None, None, STEPS
        if length == GLANCE and self.crowded(values, values[:, 0] - 2 * margin):
            values, indices = self.sweep(self.prices, length := LIST)
            wanted = self.count(indices[:, 0])
        if wanted.max() == 1:
            self.columns = np.concatenate((indices[:, 0].astype(np.int64), np.nonzero(wanted == 0)[0]))
            proof = self.prove(self.columns, self.prices, seen=(values, indices))
            if not len(proof.rows):
                return self.found(proof, "the favourites of all rows differ"), None, ()
        if length < LIST:
            values, indices = self.sweep(self.prices, LIST)
        return None, self.list_columns(values, indices), ()

    def crowded(self, values: Array, floor: Array) -> bool:
        """Whether rows have more columns than places that rounding leaves in question: float64 would take long."""
        return bool((values[:, -1] >= floor).any()) and values.shape[1] < self.size

    def sinkhorn(self, schedule: tuple[tuple[float, int], ...]) -> None:
        """p_j += temperature · log Σ_i softmax_j((s_i - p) / temperature): what many rows want becomes dearer."""
        unseen = self.size - self.rows
        for temperature, every in schedule:
            self.check_time()
            unit = temperature * self.scores.spread
            every = min(every, max(1, self.rows // 256))
            mass = self.scores.column_mass(self.prices, unit, every)
            mass *= self.rows / mass.sum()
            if unseen:  # these rows score 0 everywhere
                cheap = np.exp((self.prices.min() - self.prices) / unit)
                mass += unseen * cheap / cheap.sum()
            self.prices = self.prices + unit * np.log(np.maximum(mass, LEAST_MASS))
            self.passes += 1 / every
            self.say(f"Sinkhorn step at {temperature} std")
        if unseen:  # left-over columns end with equal prices, the lowest
            self.prices = np.maximum(self.prices, np.partition(self.prices, unseen - 1)[unseen - 1])

    def list_columns(self, values: Array, indices: Array, floor: Array | None = None) -> Lists:
        """The columns found, and the old one: so there is always a complete assignment on the lists."""
        from fastproto.assignment.augmenting_paths import start_lists

        ends, counts = start_lists(indices, self.old)
        listed, scores = np.arange(ends.shape[1]) < counts[:, None], np.zeros(ends.shape)
        scores[listed] = self.scores.exact(np.repeat(self.every_row, counts), ends[listed])
        scores[:, 0] += self.tie
        return Lists(ends, scores, counts, values[:, -1] if floor is None else np.maximum(values[:, -1], floor))

    def settle(self, lists: Lists, columns: Array, row_of: Array, steps: tuple[float, ...], *, centre: bool) -> None:
        """The optimum on the lists, with lists made longer where the prices that it needs reach beyond their end.

        Prices only rise, so what is not on a list stays below the value at its end; only rows that are left with less
        can be missing a column, and only these are looked at.
        """
        from fastproto.assignment.augmenting_paths import centre_prices, solve_lists

        spread, slack = self.scores.spread, ROUNDING * self.scores.magnitude
        for round_ in range(MAX_ROUNDS):
            self.check_time()
            arcs = (lists.indices, lists.scores, lists.counts)
            bids = tuple(step * spread for step in steps) if round_ == 0 else ()
            stuck = solve_lists(*arcs, self.prices, columns, row_of, bids, slack)
            assert stuck < 0, "the old columns are a complete assignment"
            own, margin = self.own(columns, self.prices), self.scores.margin(self.prices)
            short = np.nonzero(own < lists.complete_to + margin)[0]
            if not len(short) and not centre:
                break
            if not len(short):
                before, centre = self.prices.copy(), False
                centre_prices(*arcs, self.prices, columns, row_of, 2, CENTRE * spread)
                lists.complete_to += (before - self.prices).max()  # what is not listed may have come up by so much
                continue
            floor = own - margin - NEAR * spread
            places = min(LIST << round_, LONGEST)
            values, indices = self.sweep(self.prices, places, floor, short)
            rows, place = np.nonzero(indices >= 0)
            rows, ends = short[rows], indices[rows, place]
            scores = self.scores.exact(rows.astype(np.int32), ends)
            lists.add(rows, ends, scores + self.bonus(rows, ends))
            end = np.maximum(values[:, -1], floor[short])
            # What is still crowded then (equal columns, equal rows) is left to the sweeps for proof.
            lists.complete_to[short] = -np.inf if places == LONGEST else end
            self.say(f"{len(short)} lists made longer")

    def bonus(self, rows: Array, columns: Array) -> Array:
        """Of equally good columns the previous one is taken."""
        extra: Array = self.tie * (columns == self.old[rows])
        return extra

    def prove(
        self, columns: Array, prices: Array, places: int = PROOF, seen: tuple[Array, Array] | None = None
    ) -> Proof:
        """One sweep, or none if ``seen`` is what one saw at these prices; then float64 for what rounding left open."""
        margin = self.scores.margin(prices)
        own = self.own(columns, prices)
        floor = own - margin
        values, indices = seen or self.sweep(prices, places, floor)
        others = indices != columns[: self.rows, None]
        at = np.flatnonzero((values >= floor[:, None]) & (indices >= 0) & others)
        rows, ends = at // indices.shape[1], indices.ravel()[at]
        scores = self.scores.exact(rows.astype(np.int32), ends)
        value = scores - prices[ends]
        best = own.copy()
        np.maximum.at(best, rows, value)
        full = (indices[:, -1] >= 0) & (values[:, -1] >= floor) & (indices.shape[1] < self.size)
        better = value > own[rows] + self.tolerance(prices)
        arcs = ([rows[better]], [ends[better]], [scores[better]])
        self.complete(np.nonzero(full & (values[:, -1] + margin > best))[0], prices, own, best, arcs)
        gap = float((best - own).sum()) + self.left_over(columns, prices)
        rows, ends, scores = (np.concatenate(part) for part in arcs)
        return Proof(gap, rows, ends, scores, bool(full.any()))

    def complete(self, rows: Array, prices: Array, own: Array, best: Array, arcs: tuple[list[Array], ...]) -> None:
        """All of these rows in float64: those in which more columns than places are as good as rounding can tell."""
        step = max(1, EXACT_ELEMENTS // self.size)
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            scores = self.scores.exact_rows(part)
            value = scores - prices
            first = value.argmax(1)
            best[part] = np.maximum(best[part], value[np.arange(len(part)), first])
            better = best[part] > own[part] + self.tolerance(prices)
            for into, found in zip(arcs, (part, first, scores[np.arange(len(part)), first]), strict=True):
                into.append(found[better])

    # --- bookkeeping ---

    def count(self, columns: Array) -> Array:
        return np.bincount(columns.ravel(), minlength=self.size)

    def sweep(
        self, prices: Array, k: int, floor: OfRows = None, rows: Rows = EVERY, within: OfRows = None
    ) -> tuple[Array, Array]:
        self.check_time()
        values, indices = self.scores.top(prices, min(k, self.size), floor, rows, within)
        self.passes += len(values) / self.rows
        return values, indices

    def own(self, columns: Array, prices: Array) -> Array:
        """What each row has of its column."""
        left: Array = self.matched(columns) - prices[columns[: self.rows]]
        return left

    def matched(self, columns: Array) -> Array:
        """The scores of the rows with their columns; those asked for last are kept."""
        columns = columns[: self.rows]
        if not np.array_equal(self.last_matched[0], columns):
            self.last_matched = columns.copy(), self.scores.exact(self.every_row, columns.astype(np.int32))
        return self.last_matched[1]

    def left_over(self, columns: Array, prices: Array) -> float:
        """What columns without a row add to the gap."""
        return float((prices[columns[self.rows :]] - prices.min()).sum())

    def tolerance(self, prices: Array) -> float:
        return max(TOLERANCE * self.scores.spread, 4 * ROUNDING * self.scores.magnitude)

    def found(self, proof: Proof, reason: str) -> Found:
        objective = float(self.matched(self.columns).sum())
        return Found(self.columns, self.prices, objective, proof.gap, self.passes, reason)

    def check_time(self) -> None:
        check_stop()
        if self.deadline is not None and time.perf_counter() > self.deadline:
            raise OutOfTime

    def say(self, text: str) -> None:
        if self.progress:
            seconds = time.perf_counter() - self.started
            print(f"assignment {seconds:7.1f} s, {self.passes:.2f} sweeps: {text}", file=sys.stderr, flush=True)


@dataclass
class Lists:
    """Pairs that the exact solver may use: row i has ``counts[i]`` of them."""

    indices: Array  # [n, width] int32
    scores: Array  # [n, width] float64
    counts: Array  # [n] int64
    complete_to: Array  # [n]: no column with a larger s_ij - p_j, of the prices when it was listed, is missing

    def add(self, rows: Array, columns: Array, scores: Array) -> bool:
        """Whether any of them is new."""
        from fastproto.assignment.augmenting_paths import add_arcs

        before = int(self.counts.sum())
        more = int((self.counts + np.bincount(rows, minlength=len(self.counts))).max()) - self.indices.shape[1]
        if more > 0:
            self.indices, self.scores = (np.pad(x, ((0, 0), (0, more))) for x in (self.indices, self.scores))
        add_arcs(self.indices, self.scores, self.counts, rows, columns, scores)
        return int(self.counts.sum()) > before
