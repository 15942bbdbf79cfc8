"""Starting points of a search: a previous result, the row maxima, or the prices of Sinkhorn steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastproto.assignment.array_types import Floats, Ints, Ints32
from fastproto.assignment.matching import STILL_OPTIMAL
from fastproto.assignment.pricing import PLACES, Proof, left_over_cost, prove
from fastproto.assignment.restricted_problem import LENGTH, NEAR, Lists, make_lists
from fastproto.assignment.search_state import Found, State

# Sinkhorn schedules: (temperature in units of std(s), stride of the sampled rows). On clustered and random means the
# lists then hold the optimum at once; the last step moves prices by much less than the width of a list.
COLD = ((1.14, 4), (0.4, 2), (0.15, 1))
WARM = ((0.4, 2), (0.15, 1))
LEAST_MASS = 0.1  # lower bound of a column's mass, which limits the fall of a price that the sample does not support
SETTLED = 0.9  # share of distinct row maxima from which Sinkhorn steps and an auction are skipped
COLD_STRIDE, COLD_SHARE = 8, 0.985  # sample of a cold start; its share of distinct maxima that justifies a full pass
WARM_STRIDE = 16  # sample of a warm start
SHORT = 4  # columns per row in the first pass, where the row maxima are probably optimal
MOST_WRONG = 0.4  # share of rows whose previous column may no longer be the best: beyond it, prices start anew


def try_previous(state: State) -> Found | Lists | None:
    """The previous result if it is good enough; lists at its prices if most rows keep their column; otherwise None."""
    reader, prices = state.reader, state.prices
    reader.check_time()
    known = reader.scores.recheck(state.columns[: reader.rows], prices, PLACES)
    if known is not None:
        reader.passes += 1
        gap, objective = known[0] + left_over_cost(reader, state.columns, prices), known[1]
        if state.accept(objective, gap, prices):
            return Found(state.columns, prices, objective, gap, reader.passes, STILL_OPTIMAL, unchanged=True)
    own, margin = reader.profits(state.columns, prices), reader.scores.margin(prices)
    if reader.rows >= state.sample_rows:
        some = slice(None, None, WARM_STRIDE)
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
        state.reader.say(f"{100 * share:.1f} % of the rows prefer another column than the previous one")
    return share > MOST_WRONG


def try_row_maxima(state: State) -> Found | Lists | None:
    """The row maxima if they are a permutation; lists if most of them are distinct; otherwise None."""
    reader, prices = state.reader, state.prices
    length = SHORT
    if reader.rows >= state.sample_rows:
        _, some = reader.top(prices, 1, rows=slice(None, None, COLD_STRIDE))
        different = np.count_nonzero(_count(state, some))
        if different < COLD_SHARE * len(some):
            return None
        length = SHORT if different == len(some) else LENGTH
    margin = reader.scores.margin(prices)  # the proof needs all columns within twice the margin
    values, indices = reader.top(prices, length, within=3 * margin if length < LENGTH else None)
    wanted = _count(state, indices[:, 0])
    if np.count_nonzero(wanted) < SETTLED * reader.rows:
        return None
    # A row with more undecided columns than the short list holds would need all its scores in float64.
    if length == SHORT < reader.columns and bool((values[:, -1] >= values[:, 0] - 2 * margin).any()):
        length = LENGTH
        values, indices = reader.top(prices, length)
        wanted = _count(state, indices[:, 0])
    if wanted.max() == 1:
        state.columns = np.concatenate((indices[:, 0].astype(np.int64), np.nonzero(wanted == 0)[0]))
        proof = prove(reader, state.columns, prices, seen=(values, indices))
        if not len(proof.rows):
            return found_so_far(state, proof, "the row maxima are a permutation")
    if length < LENGTH:
        values, indices = reader.top(prices, LENGTH)
    return make_lists(state, values, indices)


def _count(state: State, columns: Ints32) -> Ints:
    """How many rows have each column as their maximum."""
    return np.bincount(columns.ravel(), minlength=state.reader.columns)


def lists_from_sinkhorn(state: State) -> Lists:
    """Runs Sinkhorn steps at falling temperatures, the first on a sample of the rows; returns lists at their prices."""
    state.prices = _sinkhorn(state, WARM if state.warm else COLD)
    return make_lists(state, *state.reader.top(state.prices, LENGTH))


def _sinkhorn(state: State, schedule: tuple[tuple[float, int], ...]) -> Floats:
    """p_j += temperature · log Σ_i softmax_j((s_i - p) / temperature): columns in demand become more expensive."""
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
        state.prices = prices  # so that an interrupted search has them
        reader.passes += 1 / every
        reader.say(f"Sinkhorn step at {temperature} std")
    if unseen:  # left-over columns end with equal prices, the lowest
        prices = np.maximum(prices, np.partition(prices, unseen - 1)[unseen - 1])
    return prices


def found_so_far(state: State, proof: Proof, reason: str) -> Found:
    reader = state.reader
    objective = float(reader.matched(state.columns).sum())
    return Found(state.columns, state.prices, objective, proof.gap, reader.passes, reason)
