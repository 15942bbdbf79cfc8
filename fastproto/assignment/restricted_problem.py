"""The restricted problem of column generation: a short list of columns for each row, and the optimum on the lists."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastproto.assignment.array_types import Floats, Ints, Ints32
from fastproto.assignment.pricing import SUM_ROUNDING
from fastproto.assignment.search_state import State

LENGTH = 24  # columns on a row's list: 16 sometimes needed a second round, 32 cost more and saved nothing
MOST_ADDED = 768  # to a list at once: doubled from LENGTH for rows that stay short of columns
NEAR = 0.5  # in units of std(s): columns so far below the assigned one are listed as well
CENTRE = 0.5  # in units of std(s): how far prices may be moved away from their limits
CENTRE_STEPS = 2
STEPS = (2e-2, 4e-3, 8e-4, 1.6e-4, 3e-5)  # of the auction, in units of std(s)
MAX_ROUNDS = 60


@dataclass
class Lists:
    """The pairs that the list solver may use: row i has ``counts[i]`` of them."""

    indices: Ints32  # [n, width]
    scores: Floats  # [n, width]
    counts: Ints  # [n]
    complete_to: Floats  # [n]: every column with a larger s_ij - p_j, at the prices of the pass, is on the list

    def add(self, rows: Ints, columns: Ints32, scores: Floats) -> bool:
        """Whether any of the pairs is new."""
        from fastproto.assignment.list_solver import add_arcs

        before = int(self.counts.sum())
        more = int((self.counts + np.bincount(rows, minlength=len(self.counts))).max()) - self.indices.shape[1]
        if more > 0:
            wider = ((0, 0), (0, more))
            self.indices, self.scores = np.pad(self.indices, wider), np.pad(self.scores, wider)
        add_arcs(self.indices, self.scores, self.counts, rows, columns, scores)
        return int(self.counts.sum()) > before


def make_lists(state: State, values: Floats, indices: Ints32, floor: Floats | None = None) -> Lists:
    """The columns of a pass and the previous one of each row: the lists always hold a complete assignment."""
    from fastproto.assignment.list_solver import start_lists

    ends, counts = start_lists(indices, state.previous)
    listed, scores = np.arange(ends.shape[1]) < counts[:, None], np.zeros(ends.shape)
    rows = np.repeat(np.arange(len(ends), dtype=np.int32), counts)
    scores[listed] = state.reader.scores.exact(rows, ends[listed])
    scores[:, 0] += state.tie_bonus
    return Lists(ends, scores, counts, values[:, -1] if floor is None else np.maximum(values[:, -1], floor))


def solve_restricted(
    state: State, lists: Lists, columns: Ints, row_of: Ints, steps: tuple[float, ...], *, centre: bool
) -> None:
    """The optimum on the lists, in place in ``columns``, ``row_of`` and ``state.prices``.

    Prices only rise, so a column that is not listed stays below the value at the end of its list. Only rows whose
    profit falls below that value can miss a column: their lists are made longer, and the lists are solved again.
    ``steps`` are those of the auction in the first round.
    """
    from fastproto.assignment.list_solver import solve_lists
    from fastproto.assignment.price_centring import centre_prices

    reader, spread = state.reader, state.reader.spread
    slack = SUM_ROUNDING * reader.scores.magnitude
    for round_ in range(MAX_ROUNDS):
        reader.check_time()
        arcs = (lists.indices, lists.scores, lists.counts)
        bids = tuple(step * spread for step in steps) if round_ == 0 else ()
        stuck = solve_lists(*arcs, state.prices, columns, row_of, bids, slack)
        assert stuck < 0, "the previous columns are a complete assignment"
        own, margin = reader.profits(columns, state.prices), reader.scores.margin(state.prices)
        short = np.nonzero(own < lists.complete_to + margin)[0]
        if len(short):
            _lengthen(state, lists, short, own - margin - NEAR * spread, min(LENGTH << round_, MOST_ADDED))
        elif centre:
            before, centre = state.prices.copy(), False
            centre_prices(*arcs, state.prices, columns, row_of, CENTRE_STEPS, CENTRE * spread)
            lists.complete_to += (before - state.prices).max()  # columns that are not listed may have risen by so much
        else:
            break


def _lengthen(state: State, lists: Lists, short: Ints, floor: Floats, places: int) -> None:
    """One pass over the rows ``short`` for columns above ``floor``."""
    reader = state.reader
    values, indices = reader.top(state.prices, places, floor, short)
    rows, place = np.nonzero(indices >= 0)
    rows, ends = short[rows], indices[rows, place]
    scores = reader.scores.exact(rows.astype(np.int32), ends)
    lists.add(rows, ends, scores + state.bonus(rows, ends))
    # A row that is still crowded then, for instance because of equal columns, is left to the pricing step.
    lists.complete_to[short] = -np.inf if places == MOST_ADDED else np.maximum(values[:, -1], floor[short])
    reader.say(f"{len(short)} lists made longer")
