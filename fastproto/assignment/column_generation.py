"""Column generation: the optimal assignment without a C×C matrix, with its duality gap.

Memory is O(C·(D + k)) with lists of k columns; a small score matrix is stored as well. The passes over all scores
dominate the time, so the steps need few of them:

1. One pass tests whether a previous result or the row maxima are optimal already (``starting_points``).
2. Otherwise Sinkhorn steps at falling temperatures find prices.
3. One pass lists the top-k columns of each row at these prices. The exact solver runs on the lists
   (``restricted_problem``).
4. One pass finds every pair with a positive reduced score at the new prices (``pricing``). If there is none, the
   assignment is optimal; otherwise these pairs join the lists, and step 3 is repeated.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from fastproto.assignment.array_types import Floats, Ints
from fastproto.assignment.pricing import MOST_PLACES, PLACES, prove
from fastproto.assignment.restricted_problem import MAX_ROUNDS, STEPS, Lists, solve_restricted
from fastproto.assignment.scores import Scores
from fastproto.assignment.search_state import SAMPLE_ROWS, Accept, Found, LongLists, OutOfTime, ScoreReader, State
from fastproto.assignment.starting_points import found_so_far, lists_from_sinkhorn, try_previous, try_row_maxima

TIE_BONUS = 1e-11  # in units of std(s): the bonus of a previous column, which breaks ties in its favour


def search(
    scores: Scores,
    previous: Ints | None,
    prices: Floats | None,
    *,
    spread: float | None = None,
    accept: Accept = lambda objective, gap, prices: False,
    deadline: float | None = None,
    progress: bool = False,
    sample_rows: int = SAMPLE_ROWS,
    most_listed: float = math.inf,
) -> Found:
    """The optimal assignment, or at the deadline or at Ctrl-C the best so far, with its gap.

    Args:
        scores: [n, m], n <= m.
        previous, prices: [m], of a previous result. It is returned if ``accept`` accepts its gap; otherwise the search
            starts from it.
        spread: replaces ``scores.spread``, the standard deviation of the scores.
        sample_rows: the number of rows from which a sample of them is tested before a pass over all.
        most_listed: pairs on the lists. With more the search ends, with a result that is not optimal.
    """
    reader = ScoreReader(scores, scores.spread if spread is None else spread, deadline, progress)
    begin = np.arange(reader.columns) if previous is None else previous.astype(np.int64)
    state = State(
        reader,
        columns=begin,
        prices=cold_prices(scores) if prices is None else prices.astype(np.float64),
        previous=begin,
        tie_bonus=0.0 if previous is None else TIE_BONUS * reader.spread,
        accept=accept,
        warm=previous is not None and prices is not None,
        sample_rows=sample_rows,
        most_listed=most_listed,
    )
    try:
        return _search(state)
    except LongLists:
        return _best_so_far(state, "long lists of candidates")
    except OutOfTime:
        found = _best_so_far(state, "time limit reached: the best so far")
        return replace(found, ending="time limit")
    except KeyboardInterrupt:
        found = _best_so_far(state, "interrupted: the best so far")
        return replace(found, ending="interrupted")


def cold_prices(scores: Scores) -> Floats:
    """Prices of a cold start; zero for n < m, where all left-over columns must have the same price."""
    rows, columns = scores.shape
    return scores.column_shift.astype(np.float64) if rows == columns else np.zeros(columns)


def _search(state: State) -> Found:
    start = try_previous(state) if state.warm else try_row_maxima(state)
    if isinstance(start, Found):
        return start
    if start is None:
        return _rounds(state, lists_from_sinkhorn(state), STEPS)
    return _rounds(state, start, ())


def _rounds(state: State, lists: Lists, steps: tuple[float, ...]) -> Found:
    """Alternates between the solver on the lists and the pricing step, until no pair has a positive reduced score.

    ``steps`` are the bid increments of the auction in the first round.
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
        reader.say(f"round {round_}: {len(proof.rows)} pairs have a positive reduced score")
        if not lists.add(proof.rows, proof.columns, proof.scores + state.bonus(proof.rows, proof.columns)):
            break  # the lists hold these pairs already: the rest is rounding
    return found_so_far(state, proof, f"{round_} round{'s' if round_ > 1 else ''} of lists, prices and proof")


def _best_so_far(state: State, reason: str) -> Found:
    """The best assignment so far, after one more pass for its gap."""
    state.reader.deadline = None
    return found_so_far(state, prove(state.reader, state.columns, state.prices), reason)
