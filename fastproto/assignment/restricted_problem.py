"""The restricted problem of column generation: a short list of columns per row, and the optimum on the lists."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastproto.assignment.array_types import Floats, Ints, Ints32
from fastproto.assignment.pricing import SUM_ROUNDING
from fastproto.assignment.search_state import LongLists, State

LENGTH = 24  # columns of a list: with 16, some instances need a second round; 32 costs more and saves none
MOST_ADDED = 768  # columns added to a list in one pass: doubled from LENGTH for rows that stay short of columns
NEAR = 0.5  # in units of std(s): columns up to this far below the assigned one are listed as well
CENTRE = 0.5  # in units of std(s): the largest move of a price in the centring
CENTRE_REPEATS = 2
STEPS = (2e-2, 4e-3, 8e-4, 1.6e-4, 3e-5)  # bid increments of the auction, in units of std(s)
MAX_ROUNDS = 60


@dataclass
class Lists:
    """The pairs of the restricted problem: row i has ``counts[i]`` of them."""

    indices: Ints32  # [n, width]
    scores: Floats  # [n, width]
    counts: Ints  # [n]
    complete_to: Floats  # [n]: every column with a larger s_ij - p_j, at the prices of the pass, is on the list

    def add(self, rows: Ints, columns: Ints32, scores: Floats) -> bool:
        """Adds the pairs that are new; returns whether there was one."""
        from fastproto.assignment.list_solver import add_arcs

        before = int(self.counts.sum())
        more = int((self.counts + np.bincount(rows, minlength=len(self.counts))).max()) - self.indices.shape[1]
        if more > 0:
            wider = ((0, 0), (0, more))
            self.indices, self.scores = np.pad(self.indices, wider), np.pad(self.scores, wider)
        add_arcs(self.indices, self.scores, self.counts, rows, columns, scores)
        return int(self.counts.sum()) > before


def make_lists(state: State, values: Floats, indices: Ints32, floor: Floats | None = None) -> Lists:
    """Lists of the columns of a pass and of the previous column of each row, so that a complete assignment exists."""
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
    """The optimum on the lists; changes ``columns``, ``row_of`` and ``state.prices`` in place.

    Prices only rise, so an unlisted column stays below the last value of the row's list. Only a row whose profit falls
    below that value can miss a column: its list is extended, and the lists are solved again. ``steps`` are the bid
    increments of the auction in the first round.

    Raises:
        LongLists: there are more than ``state.most_listed`` pairs.
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
            if lists.counts.sum() > state.most_listed:
                raise LongLists
            _extend(state, lists, short, own - margin - NEAR * spread, min(LENGTH << round_, MOST_ADDED))
        elif centre:
            before, centre = state.prices.copy(), False
            centre_prices(*arcs, state.prices, columns, row_of, CENTRE_REPEATS, CENTRE * spread)
            lists.complete_to += (before - state.prices).max()  # unlisted columns may have become better by this much
        else:
            break


def _extend(state: State, lists: Lists, short: Ints, floor: Floats, places: int) -> None:
    """Extends the lists of the rows ``short`` by the columns above ``floor``, in one pass over these rows."""
    reader = state.reader
    values, indices = reader.top(state.prices, places, floor, short)
    rows, place = np.nonzero(indices >= 0)
    rows, ends = short[rows], indices[rows, place]
    scores = reader.scores.exact(rows.astype(np.int32), ends)
    lists.add(rows, ends, scores + state.bonus(rows, ends))
    # A row that is still short of columns, for instance because of ties, is left to the pricing step.
    lists.complete_to[short] = -np.inf if places == MOST_ADDED else np.maximum(values[:, -1], floor[short])
    reader.say(f"{len(short)} lists extended")
