"""Where a search starts: from a previous result, from the row maxima, or from the prices of Sinkhorn steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastproto.assignment.array_types import Floats, Ints, Ints32
from fastproto.assignment.matching import STILL_OPTIMAL
from fastproto.assignment.pricing import PLACES, Proof, left_over_cost, prove
from fastproto.assignment.restricted_problem import LENGTH, NEAR, Lists, make_lists
from fastproto.assignment.search_state import Found, State

# (temperature in units of std(s), one row in so many). On clustered and random means the lists then hold the optimum at
# once; the last step still moves prices, but well within the width of a list.
COLD = ((1.14, 4), (0.4, 2), (0.15, 1))
WARM = ((0.4, 2), (0.15, 1))
LEAST_MASS = 0.1  # a column that no row of the sample wants need not become much cheaper
SETTLED = 0.9  # from this share of distinct row maxima on, Sinkhorn steps and an auction do not pay
LOOK_EVERY, LOOK_SHARE = 8, 0.985  # the sample of a cold start, and its share of distinct maxima that makes a pass pay
PEEK_EVERY = 16  # the sample of a warm start
GLANCE = 4  # columns per row in the first pass, where the row maxima are likely to be the answer
FEW = 0.4  # of the rows: so many may be wrong for the previous prices to be kept


def look_at_previous(state: State) -> Found | Lists | None:
    """The previous result if it is still good enough, lists around it if most of it holds, otherwise None."""
    reader, prices = state.reader, state.prices
    reader.check_time()
    known = reader.scores.recheck(state.columns[: reader.rows], prices, PLACES)
    if known is not None:
        reader.passes += 1
        gap, objective = known[0] + left_over_cost(reader, state.columns, prices), known[1]
        if state.accept(objective, gap, prices):
            return Found(state.columns, prices, objective, gap, reader.passes, STILL_OPTIMAL, unchanged=True)
    own, margin = reader.profits(state.columns, prices), reader.scores.margin(prices)
    if reader.rows >= state.look_rows:
        some = slice(None, None, PEEK_EVERY)
        values, _ = reader.top(prices, 1, own - margin, some)
        if _too_many_wrong(state, float(np.mean(values[:, 0] > (own + margin)[some]))):
            return None
    floor = own - margin - NEAR * reader.spread
    values, indices = reader.top(prices, LENGTH, floor=floor)
    proof = prove(reader, state.columns, prices, seen=(values, indices))
    found = found_so_far(state, proof, STILL_OPTIMAL)
    if state.accept(found.objective, found.gap, prices):
        return replace(found, unchanged=True)
    if _too_many_wrong(state, len(np.unique(proof.rows)) / reader.rows):
        return None
    return make_lists(state, values, indices, floor)


def _too_many_wrong(state: State, share: float) -> bool:
    if share:
        state.reader.say(f"{100 * share:.1f} % of the previous assignment no longer hold")
    return share > FEW


def look_at_row_maxima(state: State) -> Found | Lists | None:
    """The row maxima if they are a permutation, lists if they nearly are one, otherwise None."""
    reader, prices = state.reader, state.prices
    length = GLANCE
    if reader.rows >= state.look_rows:
        _, some = reader.top(prices, 1, rows=slice(None, None, LOOK_EVERY))
        different = np.count_nonzero(_count(state, some))
        if different < LOOK_SHARE * len(some):
            return None
        length = GLANCE if different == len(some) else LENGTH
    margin = reader.scores.margin(prices)  # a proof needs the columns within twice of it, and rounding
    values, indices = reader.top(prices, length, within=3 * margin if length < LENGTH else None)
    wanted = _count(state, indices[:, 0])
    if np.count_nonzero(wanted) < SETTLED * reader.rows:
        return None
    # Rows with more undecided columns than places would need float64 for all their columns.
    if length == GLANCE < reader.columns and bool((values[:, -1] >= values[:, 0] - 2 * margin).any()):
        length = LENGTH
        values, indices = reader.top(prices, length)
        wanted = _count(state, indices[:, 0])
    if wanted.max() == 1:
        state.columns = np.concatenate((indices[:, 0].astype(np.int64), np.nonzero(wanted == 0)[0]))
        proof = prove(reader, state.columns, prices, seen=(values, indices))
        if not len(proof.rows):
            return found_so_far(state, proof, "the favourites of all rows differ")
    if length < LENGTH:
        values, indices = reader.top(prices, LENGTH)
    return make_lists(state, values, indices)


def _count(state: State, columns: Ints32) -> Ints:
    """How many rows want each column."""
    return np.bincount(columns.ravel(), minlength=state.reader.columns)


def lists_from_sinkhorn(state: State) -> Lists:
    """Sinkhorn steps at falling temperatures, the first ones on a sample of the rows, then lists at their prices."""
    state.prices = _sinkhorn(state, WARM if state.warm else COLD)
    return make_lists(state, *state.reader.top(state.prices, LENGTH))


def _sinkhorn(state: State, schedule: tuple[tuple[float, int], ...]) -> Floats:
    """p_j += temperature · log Σ_i softmax_j((s_i - p) / temperature): columns that many rows want become dearer."""
    reader, prices = state.reader, state.prices
    unseen = reader.columns - reader.rows
    for temperature, every in schedule:
        reader.check_time()
        unit = temperature * reader.spread
        every = min(every, max(1, reader.rows // 256))
        mass = reader.scores.column_mass(prices, unit, every)
        mass *= reader.rows / mass.sum()
        if unseen:  # these rows score 0 everywhere
            cheap = np.exp((prices.min() - prices) / unit)
            mass += unseen * cheap / cheap.sum()
        prices = prices + unit * np.log(np.maximum(mass, LEAST_MASS))
        state.prices = prices  # of an interrupted search as well
        reader.passes += 1 / every
        reader.say(f"Sinkhorn step at {temperature} std")
    if unseen:  # left-over columns end with equal prices, the lowest
        prices = np.maximum(prices, np.partition(prices, unseen - 1)[unseen - 1])
    return prices


def found_so_far(state: State, proof: Proof, reason: str) -> Found:
    reader = state.reader
    objective = float(reader.matched(state.columns).sum())
    return Found(state.columns, state.prices, objective, proof.gap, reader.passes, reason)
