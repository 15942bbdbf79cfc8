"""Column generation: the optimal assignment without a C×C matrix, and the proof of it.

Memory is O(C·(D + k)), and the scores of a small problem. Passes over all scores are what costs time, and the steps are
chosen to need few of them:

1. One pass looks whether a previous result, or the row maxima, are the answer already (``starting_points``).
2. Otherwise Sinkhorn steps at falling temperatures find prices.
3. One pass lists the best columns of each row at these prices. The exact solver runs on the lists
   (``restricted_problem``).
4. One pass finds every pair that the new prices do not rule out (``pricing``). None: the assignment is optimal.
   Otherwise these pairs join the lists, and step 3 is repeated.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastproto.assignment.array_types import Floats, Ints
from fastproto.assignment.pricing import MOST_PLACES, PLACES, prove
from fastproto.assignment.restricted_problem import MAX_ROUNDS, STEPS, Lists, solve_restricted
from fastproto.assignment.scores import Scores
from fastproto.assignment.search_state import LOOK_ROWS, Accept, Found, OutOfTime, ScoreReader, State
from fastproto.assignment.starting_points import found_so_far, lists_from_sinkhorn, look_at_previous, look_at_row_maxima

TIE = 1e-11  # in units of std(s): a previous column is so much better than its equal


def search(
    scores: Scores,
    previous: Ints | None,
    prices: Floats | None,
    *,
    spread: float | None = None,
    accept: Accept = lambda objective, gap, prices: False,
    deadline: float | None = None,
    progress: bool = False,
    look_rows: int = LOOK_ROWS,
) -> Found:
    """The optimal assignment, or the best so far at the deadline or at Ctrl-C, with its gap.

    Args:
        scores: with no more rows than columns.
        previous, prices: [m], of a previous result. It is returned where ``accept`` agrees to its certificate, else the
            search starts from it.
        spread: the standard deviation of the scores, where it is not ``scores.spread``.
        look_rows: with so many rows or more, a sample of them is looked at before a pass over all.
    """
    reader = ScoreReader(scores, scores.spread if spread is None else spread, deadline, progress)
    begin = np.arange(reader.columns) if previous is None else previous.astype(np.int64)
    state = State(
        reader,
        columns=begin,
        prices=cold_prices(scores) if prices is None else prices.astype(np.float64),
        previous=begin,
        tie_bonus=0.0 if previous is None else TIE * reader.spread,
        accept=accept,
        warm=previous is not None and prices is not None,
        look_rows=look_rows,
    )
    try:
        return _search(state)
    except OutOfTime:
        found = _best_so_far(state, "the time was over: the best so far")
        return replace(found, ending="time limit")
    except KeyboardInterrupt:
        found = _best_so_far(state, "interrupted: the best so far")
        return replace(found, ending="interrupted")


def cold_prices(scores: Scores) -> Floats:
    """Those of a search that knows nothing; with fewer rows than columns left-over columns must cost the same."""
    rows, columns = scores.shape
    return scores.column_shift.astype(np.float64) if rows == columns else np.zeros(columns)


def _search(state: State) -> Found:
    start = look_at_previous(state) if state.warm else look_at_row_maxima(state)
    if isinstance(start, Found):
        return start
    if start is None:
        return _rounds(state, lists_from_sinkhorn(state), STEPS)
    return _rounds(state, start, ())


def _rounds(state: State, lists: Lists, steps: tuple[float, ...]) -> Found:
    """Solves the lists, looks for pairs that are better, adds them to the lists, and so on until there are none.

    ``steps`` are those of the auction in the first round.
    """
    reader, size, places = state.reader, state.reader.columns, PLACES
    columns, row_of = state.columns.copy() if state.warm else np.full(size, -1), np.full(size, -1)
    for round_ in range(1, MAX_ROUNDS + 1):
        solve_restricted(state, lists, columns, row_of, steps if round_ == 1 else (), centre=round_ == 1)
        state.columns = columns.copy()
        proof = prove(reader, state.columns, state.prices, places)
        if not len(proof.rows):
            break
        places = min(2 * places, MOST_PLACES) if proof.crowded else places
        reader.say(f"round {round_}: {len(proof.rows)} pairs are better")
        if not lists.add(proof.rows, proof.columns, proof.scores + state.bonus(proof.rows, proof.columns)):
            break  # the lists hold these pairs: what is left is rounding
    return found_so_far(state, proof, f"{round_} round{'s' if round_ > 1 else ''} of lists, prices and proof")


def _best_so_far(state: State, reason: str) -> Found:
    """After one more pass, for the gap."""
    state.reader.deadline = None
    return found_so_far(state, prove(state.reader, state.columns, state.prices), reason)
