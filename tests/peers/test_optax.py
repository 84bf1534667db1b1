"""Shared optax schedules (float32) compared step by step, and the intended differences."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import FLOAT32
from parity import agree as agree_within

from ratecraft import (
    ScheduleError,
    constant,
    cosine,
    decay,
    linear,
    one_cycle,
    polynomial,
    staircase,
    warmup,
)

jax = pytest.importorskip("jax")
peer = pytest.importorskip("optax.schedules")
pytestmark = pytest.mark.peers

agree = partial(agree_within, within=FLOAT32)
# Fewer examples, since JAX compiles each of them.
compiled = settings(max_examples=max(10, settings.default.max_examples // 10))

STEPS = 120  # longer than every schedule drawn below
peaks = st.floats(1e-5, 10)
shares = st.floats(0, 1)
lengths = st.integers(1, 100)


def drawn(*strategies):
    return lambda test: compiled(given(*strategies)(test))


def read(schedule, steps=STEPS):
    return np.asarray(jax.vmap(lambda k: jax.numpy.asarray(schedule(k)))(np.arange(steps)))


@drawn(peaks)
def test_constant(lr):
    theirs = peer.constant_schedule(lr)
    agree(constant(lr), [theirs(k) for k in range(STEPS)])


@drawn(peaks, shares, lengths, st.integers(0, 30))
def test_linear(peak, share, length, begin):
    theirs = read(peer.linear_schedule(peak, share * peak, length, begin))
    agree(peak * constant(1, over=begin).then(linear(1, share, over=length)), theirs)


@drawn(peaks, shares, st.floats(0.1, 4), lengths)
def test_polynomial(peak, share, power, length):
    theirs = read(peer.polynomial_schedule(peak, share * peak, power, length))
    agree(peak * polynomial(1, share, power, over=length), theirs)


@drawn(peaks, st.floats(0.1, 1), st.integers(1, 50), st.integers(0, 30), shares)
def test_exponential_decay(peak, lr, every, begin, eta_min):
    theirs = peer.exponential_decay(peak, every, lr, begin, end_value=eta_min * peak)
    agree(peak * constant(1, over=begin).then(decay(lr, every)).clip(low=eta_min), read(theirs))


@drawn(peaks, st.floats(0.1, 1), st.integers(1, 50))
def test_exponential_decay_in_steps(peak, lr, every):
    theirs = peer.exponential_decay(peak, every, lr, staircase=True)
    agree(peak * constant(1, over=every).repeat(decay=lr), read(theirs))


@drawn(peaks, shares, lengths)
def test_cosine_decay(peak, share, length):
    theirs = read(peer.cosine_decay_schedule(peak, length, alpha=share))
    agree(peak * cosine(1, share, over=length), theirs)


@drawn(peaks, lengths)
def test_warmup_constant(peak, rise):
    agree(peak * warmup(rise), read(peer.warmup_constant_schedule(0, peak, rise)))


@drawn(peaks, shares, st.integers(1, 50), st.integers(1, 50), shares)
def test_warmup_cosine_decay(peak, first, rise, fall, share):
    theirs = peer.warmup_cosine_decay_schedule(first * peak, peak, rise, rise + fall, share * peak)
    schedule = warmup(rise, start=first).then(cosine(1, share))
    agree(peak * schedule, read(theirs), total_steps=rise + fall)


@drawn(peaks, st.integers(1, 50), st.floats(0.1, 1), st.integers(1, 50))
def test_warmup_exponential_decay(peak, rise, lr, every):
    theirs = peer.warmup_exponential_decay_schedule(0, peak, rise, every, lr)
    agree(peak * warmup(rise).then(decay(lr, every)), read(theirs))


@drawn(peaks, st.dictionaries(lengths, st.floats(0, 1), max_size=5))
def test_piecewise_constant(peak, factors):
    at = sorted(factors)
    values = np.cumprod([1, *(factors[k] for k in at)])
    theirs = read(peer.piecewise_constant_schedule(peak, factors))
    agree(peak * staircase(values, at=at), theirs)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
@drawn(peaks, st.dictionaries(lengths, st.floats(0.1, 2), min_size=1, max_size=5))
def test_piecewise_interpolate(shape, peak, factors):
    ramp = {"linear": linear, "cosine": cosine}[shape]
    at = sorted(factors)
    values = np.cumprod([1, *(factors[k] for k in at)])
    parts = [
        ramp(values[i], values[i + 1], over=int(length))
        for i, length in enumerate(np.diff([0, *at]))
    ]
    theirs = read(peer.piecewise_interpolate_schedule(shape, peak, factors))
    agree(peak * parts[0].then(*parts[1:]), theirs)


@drawn(peaks, st.lists(st.integers(1, 30), min_size=1, max_size=4), st.floats(0.5, 1))
def test_join(peak, sizes, lr):
    """Each joined schedule starts at its own step 0."""
    parts = [linear(1, 0.1, over=20), cosine(1, 0.1, over=25), decay(lr), constant(0.3)]
    theirs = [
        peer.linear_schedule(peak, 0.1 * peak, 20),
        peer.cosine_decay_schedule(peak, 25, 0.1),
        peer.exponential_decay(peak, 1, lr),
        peer.constant_schedule(0.3 * peak),
    ]
    count = len(sizes)
    schedule = peak * parts[0].over(sizes[0])
    for part, size in zip(parts[1:count], sizes[1:], strict=True):
        schedule = schedule.then(peak * part.over(size))
    schedule = schedule.then(peak * constant(0.3))
    joined = peer.join_schedules(
        [*theirs[:count], peer.constant_schedule(0.3 * peak)], np.cumsum(sizes).tolist()
    )
    agree(schedule, read(joined, 150), total_steps=150)


@drawn(peaks, st.integers(0, 5), st.integers(1, 20), st.integers(1, 3), st.floats(0.1, 1))
def test_sgdr(peak, rise, fall, grow, shrink):
    theirs = peer.sgdr_schedule(
        [
            {
                "init_value": 0,
                "peak_value": peak * shrink**i,
                "warmup_steps": rise * grow**i,
                "decay_steps": (rise + fall) * grow**i,
            }
            for i in range(4)
        ]
    )
    schedule = warmup(rise).then(cosine(over=fall)).repeat(4, grow=grow, decay=shrink)
    agree(peak * schedule, read(theirs))


@drawn(peaks, st.integers(10, 100), st.floats(0.1, 0.5), st.floats(1.1, 100), st.floats(1, 1e4))
def test_cosine_one_cycle(peak, total_steps, share, div, final_div):
    theirs = peer.cosine_onecycle_schedule(total_steps, peak, share, div, final_div)
    schedule = one_cycle(int(share * total_steps), start=1 / div, end=1 / div / final_div)
    agree(peak * schedule, read(theirs), total_steps=total_steps)


@drawn(
    peaks,
    st.integers(20, 100),
    st.floats(0.1, 0.5),
    st.floats(0.6, 0.9),
    st.floats(1.1, 100),
    st.floats(1, 1e4),
)
def test_linear_one_cycle(peak, total_steps, share, final_share, div, final_div):
    theirs = peer.linear_onecycle_schedule(total_steps, peak, share, final_share, div, final_div)
    top, low = int(share * total_steps), int(final_share * total_steps)
    schedule = linear(1 / div, 1, over=top).then(linear(1, 1 / div, over=low - top))
    schedule = schedule.then(linear(1 / div, 1 / div / final_div))
    agree(peak * schedule, read(theirs), total_steps=total_steps)


def test_linear_one_cycle_with_three_phases():
    theirs = peer.linear_onecycle_schedule(100, 1.0, 0.3, 0.6)
    agree(one_cycle(shape="linear", three_phase=True), read(theirs), total_steps=100)


# Intended differences --------------------------------------------------------------------------


def test_optax_warmup_of_0_steps_stays_at_0():
    theirs = peer.warmup_constant_schedule(0.0, 1.0, warmup_steps=0)
    assert [theirs(k) for k in range(5)] == [0] * 5
    assert warmup(0).resolve(total_steps=5).values().tolist() == [1] * 5


def test_optax_accepts_boundaries_in_the_wrong_order():
    parts = [peer.constant_schedule(v) for v in (1.0, 0.1, 0.01)]
    theirs = read(peer.join_schedules(parts, [8, 4]), 10)
    assert theirs[4] == pytest.approx(0.01)  # the middle schedule is never used
    assert 0.1 not in theirs.round(3)
    with pytest.raises(ScheduleError, match="must not decrease"):
        staircase([1, 0.1, 0.01], at=[8, 4]).resolve(total_steps=10)


def test_optax_drops_a_schedule_if_a_boundary_is_missing():
    parts = [peer.constant_schedule(v) for v in (1.0, 0.1, 0.01)]
    assert read(peer.join_schedules(parts, [4]), 10)[-1] == pytest.approx(0.1)
    with pytest.raises(ScheduleError, match="at most one part"):
        constant(1, over=4).then(constant(0.1)).then(constant(0.01))


def test_optax_rounds_late_steps_to_float32():
    last = 2**24 + 1
    theirs = peer.linear_schedule(0.0, 1.0, 2**25)
    assert theirs(last) == theirs(last - 1)
    ours = linear(0, 1, over=2**25).resolve()
    assert ours(last) - ours(last - 1) == 2**-25
    assert ours(last) == last / 2**25
