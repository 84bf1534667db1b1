"""Hypothesis strategies for lengths, leaves and schedules, and helpers to compare curves."""

import functools
import operator

import numpy as np
from hypothesis import strategies as st

from ratecraft import (
    ScheduleError,
    constant,
    cooldown,
    cosine,
    decay,
    epochs,
    exponential,
    linear,
    one_minus_sqrt,
    percent,
    polynomial,
    power_law,
    rex,
    sqrt,
    square,
    staircase,
    steps,
    tanh,
    warmup,
)

SPANS = (33.5, 60, 97, 100, 1000)
EPOCH = 10

spans = st.sampled_from(SPANS)

# Numbers -----------------------------------------------------------------------------------

# Numbers are drawn from a pool of simple and irregular ones, since each draw is slow.
IRREGULAR = [round(0.0371 * (1.37**i), 4) for i in range(14)]  # up to 2.2
numbers = st.sampled_from([1, 0, -1, 0.5, 2, 0.1, 1e-3, *IRREGULAR, *(-x for x in IRREGULAR)])
positive = st.sampled_from([1, 0.1, 2, 1e-3, *IRREGULAR])
shares = st.sampled_from([0, 0.5, 0.1, 0.25, 1 / 3, 0.99])
growths = st.sampled_from([1, 1, 2, 0.5, 1.5, 3, 1 + 1e-5, 1.0009, 1.1, 0.97, 2**0.5])
decays = st.sampled_from([1, 1, 0.5, 0.1, 0, 2, 0.97, 1.1, 1 / 3])


# Lengths -----------------------------------------------------------------------------------

SINGLE = [steps(n / 8) for n in range(0, 320, 9)] + [steps(x) for x in (0, 0.3, 1.1, 10, 30, 33.33)]
SINGLE += [epochs(x) for x in (0, 0.1, 0.2, 0.3, 0.5, 1, 2, 1 / 3)]
PERCENTS = [percent(p) for p in (0, 5, 10, 20, 30, 50, 100, 0.7, 12.5, 33.33, 100 / 3)]

counts_of_steps = st.integers(0, 40)
single_lengths = st.sampled_from(SINGLE)
shares_of_scope = st.sampled_from(PERCENTS)
fixed_lengths = st.one_of(
    counts_of_steps,
    single_lengths,
    st.builds(operator.add, single_lengths, single_lengths),
    st.builds(operator.add, single_lengths, counts_of_steps),
)
"""Lengths of 0 or more that are the same in every scope."""

lengths = st.one_of(
    counts_of_steps,
    single_lengths,
    shares_of_scope,
    st.builds(operator.add, single_lengths, counts_of_steps),
    st.builds(operator.add, shares_of_scope, counts_of_steps),
    st.builds(operator.sub, shares_of_scope | single_lengths, st.integers(0, 3)),
    st.builds(operator.sub, st.integers(20, 60), single_lengths),
)
"""Lengths of every kind; a difference may be negative."""


# Leaves ------------------------------------------------------------------------------------


@st.composite
def ramps(draw, optional):
    """Draw leaves that stretch to their length; `optional` draws a length or None."""
    word = draw(st.sampled_from(RAMPS))
    over = draw(optional)
    if word is exponential:
        sign = draw(st.sampled_from([1, -1]))
        return exponential(sign * draw(positive), sign * draw(positive), over=over)
    ends = draw(numbers), draw(numbers)
    if word is polynomial:
        return polynomial(*ends, draw(st.sampled_from([0.5, 1, 2, 3])), over=over)
    if word is cosine:
        return cosine(*ends, draw(st.sampled_from([1, 1, 2, 7])), over=over)
    return word(*ends, over=over)


RAMPS = (linear, cosine, cosine, exponential, polynomial, one_minus_sqrt, sqrt, square, tanh, rex)


@st.composite
def clocks(draw, optional):
    """Draw leaves that are functions of the time since their start."""
    scale = draw(st.sampled_from([1, 7, steps(2.5), epochs(0.3), epochs(1)]))
    if draw(st.booleans()):
        return decay(draw(st.sampled_from([0.5, 0.97, 1, 1.01])), scale, over=draw(optional))
    shift = draw(st.sampled_from([0, 3, scale, epochs(2)]))
    exponent = draw(st.sampled_from([-0.5, -1, -2.5]))
    return power_law(exponent, scale, shift, over=draw(optional))


def stairs(optional):
    """Return staircases with every= and with at=; `optional` draws a length or None."""
    levels = st.lists(numbers, min_size=1, max_size=5)
    widths = optional.map(lambda length: length or 7)
    regular = st.builds(
        lambda values, every, over: staircase(values, every=every, over=over),
        levels,
        widths,
        optional,
    )

    def listed(pair, over):
        values, joins = pair
        return staircase(values, at=sorted(joins)[: len(values) - 1], over=over)

    ints = st.tuples(counts_of_steps, counts_of_steps, counts_of_steps, counts_of_steps)
    return regular | st.builds(listed, st.tuples(levels, ints), optional)


def leaves(over=lengths):
    """Return leaves of every kind that has a text."""
    words = st.builds(warmup, over, shares) | st.builds(cooldown, over, shares)
    # Mapped, so that one_of does not flatten it.
    optional = st.none() | over.map(lambda length: length)
    constants = st.builds(constant, numbers, optional)
    return st.one_of(constants, words, ramps(optional), stairs(optional), clocks(optional))


VERBS = ("then", "product", "scale", "repeat", "endless", "clip", "rescale", "over", "reversed")


@st.composite
def verbs(draw, depth, over):
    """Draw a method call on a schedule; if it is invalid, the schedule without it."""
    inner = schedules(depth, over)
    a, verb = draw(inner), draw(st.sampled_from(VERBS))
    try:
        match verb:
            case "then":
                b = draw(inner)
                if a._is_open() and b._is_open():
                    a = a.over(draw(over))
                return a.then(b)
            case "product":
                return a * draw(inner)
            case "scale":
                return draw(numbers) * a
            case "repeat":
                return a.repeat(draw(st.integers(1, 4)), grow=draw(growths), decay=draw(decays))
            case "endless":
                return a.repeat(grow=draw(st.floats(1, 3)), decay=draw(st.floats(0.1, 1)))
            case "clip":
                low, high = sorted([draw(numbers), draw(numbers)])
                left_out = draw(st.sampled_from(["low", "high", "none"]))
                return a.clip(
                    None if left_out == "low" else low, None if left_out == "high" else high
                )
            case "rescale":
                return a.rescale(draw(numbers), draw(numbers))
            case "over":
                return a.over(draw(over))
            case _:
                return a.reversed()
    except ScheduleError:
        return a


@functools.cache
def schedules(depth=3, over=lengths):
    """Return schedules of up to `depth` levels of method calls on leaves."""
    if depth == 0:
        return leaves(over)
    deep = verbs(depth - 1, over)
    shallow = schedules(depth - 1, over)
    return st.sampled_from([deep, deep, shallow]).flatmap(lambda chosen: chosen)


@functools.cache
def closed(depth=2, over=lengths):
    """Return schedules with a length."""
    pair = st.tuples(schedules(depth, over), over)
    return pair.map(lambda drawn: drawn[0].over(drawn[1]) if drawn[0]._is_open() else drawn[0])


open_leaves = st.one_of(
    ramps(st.none()), stairs(st.none()), clocks(st.none()), st.builds(constant, numbers)
)


@st.composite
def opened(draw, depth=2):
    """Draw schedules without a length, which fill the rest of the run."""
    a = draw(open_leaves)
    for _ in range(draw(st.integers(0, depth))):
        match draw(st.sampled_from(["then", *VERBS])):
            case "then":
                a = a.then(draw(closed(0)))
            case "over":
                a = draw(closed(0)).then(a)
            case "product":
                a = a * draw(closed(0))
            case "scale":
                a = draw(numbers) * a
            case "repeat" | "endless":
                a = a.repeat(draw(st.integers(1, 3)), grow=draw(growths), decay=draw(decays))
            case "clip":
                a = a.clip(high=draw(numbers))
            case "rescale":
                a = a.rescale(draw(numbers), draw(numbers))
            case _:
                a = a.reversed()
    return a


# Helpers -----------------------------------------------------------------------------------


def resolved(schedule, total):
    """Return the curve over a span of the tests."""
    return schedule.resolve(total_steps=total, steps_per_epoch=EPOCH)


def span(total):
    """Return a span as resolve takes it."""
    return steps(total)


def bound(curve):
    """Return an upper bound of the absolute values of a curve."""
    return curve.bound


def is_steep(*schedules):
    """Return whether the schedule has a square root, which magnifies rounding errors near 0."""
    return any(", 0.5" in repr(s) or "sqrt" in repr(s) for s in schedules)


def assert_same(first, second, total, tolerance=1e-9):
    """Check that two functions build schedules with the same values, or both raise.

    They take no arguments, so that errors while building count, too.
    """
    results = []
    for make in (first, second):
        try:
            results.append(resolved(make(), span(total)))
        except ScheduleError as error:
            results.append(error)
    raised = [isinstance(result, ScheduleError) for result in results]
    assert all(raised) == any(raised), f"only one side raises: {results}"
    if all(raised):
        return
    a, b = results
    times = np.arange(int(total) + 3)
    size = max(bound(a), bound(b), 1e-300)
    if is_steep(a.schedule, b.schedule):
        tolerance = max(tolerance, 1e-6)
    np.testing.assert_allclose(a.values(times), b.values(times), rtol=0, atol=tolerance * size)
    for t in times[:: max(1, len(times) // 30)].tolist():
        assert abs(a(t) - b(t)) <= tolerance * size
