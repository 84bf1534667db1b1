"""Shared transformers schedules compared step by step, and the intended differences."""

from functools import partial

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from parity import agree, lrs

from ratecraft import (
    constant,
    cooldown,
    cosine,
    inverse_sqrt,
    linear_to_zero,
    one_minus_sqrt,
    polynomial,
    warmup,
    wsd,
)

peer = pytest.importorskip("transformers.optimization")
pytestmark = pytest.mark.peers

TOTAL = 100
# Fewer examples, since each makes 100 steps of a torch scheduler.
slow = settings(max_examples=settings.default.max_examples // 4)

peaks = st.floats(1e-5, 10)
rises = st.integers(0, TOTAL - 1)
shares = st.floats(0, 1)


def drawn(*strategies):
    return lambda test: slow(given(*strategies)(test))


def named(name, rise=0, total_steps=TOTAL, **more):
    """Return a function that builds the named schedule as Trainer does."""
    return partial(
        make, name=name, num_warmup_steps=rise, num_training_steps=total_steps, more=more
    )


def make(optimizer, *, more, **arguments):
    return peer.get_scheduler(
        optimizer=optimizer, scheduler_specific_kwargs=more or None, **arguments
    )


@drawn(peaks)
def test_constant(peak):
    agree(constant(peak), lrs(named("constant"), TOTAL, peak))


@drawn(peaks, rises)
def test_constant_with_warmup(peak, rise):
    agree(peak * warmup(rise), lrs(named("constant_with_warmup", rise), TOTAL, peak))


@drawn(peaks, rises)
def test_linear_and_after_its_end(peak, rise):
    theirs = lrs(named("linear", rise), TOTAL + 5, peak)
    agree(peak * linear_to_zero(rise), theirs, total_steps=TOTAL)


@drawn(peaks, rises, st.floats(0.1, 5))
def test_cosine(peak, rise, cycles):
    theirs = lrs(named("cosine", rise, num_cycles=cycles), TOTAL, peak)
    agree(peak * warmup(rise).then(cosine(half_cycles=2 * cycles)), theirs)


@drawn(peaks, rises)
def test_cosine_of_half_a_cycle(peak, rise):
    agree(peak * warmup(rise).then(cosine()), lrs(named("cosine", rise), TOTAL, peak))


@drawn(peaks, rises, st.integers(1, 12))
def test_cosine_with_restarts_and_after_its_end(peak, rise, cycles):
    left = TOTAL - rise
    restarts = [k for k in range(left) if (cycles * k) % left == 0]
    assume(all((cycles * (k / left)) % 1.0 < 0.5 for k in restarts))  # see the differences below
    theirs = lrs(named("cosine_with_restarts", rise, num_cycles=cycles), TOTAL + 5, peak)
    agree(peak * warmup(rise).then(cosine().repeat(cycles)), theirs, total_steps=TOTAL)


@drawn(peaks, rises, st.floats(0, 0.99), st.floats(0.1, 4))
def test_polynomial_and_after_its_end(peak, rise, share, power):
    theirs = lrs(named("polynomial", rise, lr_end=share * peak, power=power), TOTAL + 5, peak)
    agree(peak * warmup(rise).then(polynomial(1, share, power)), theirs, total_steps=TOTAL)


@drawn(peaks, rises, st.integers(1, 1000))
def test_inverse_sqrt(peak, rise, scale):
    theirs = lrs(named("inverse_sqrt", rise, timescale=scale), TOTAL, peak)
    agree(peak * warmup(rise).then(inverse_sqrt(scale)), theirs)


def test_inverse_sqrt_with_the_warmup_as_timescale():
    theirs = lrs(named("inverse_sqrt", 20), TOTAL)
    agree(warmup(20).then(inverse_sqrt(20)), theirs)


@drawn(peaks, rises, shares, st.floats(0.1, 5))
def test_cosine_with_min_lr(peak, rise, share, cycles):
    schedule = peak * warmup(rise).then(cosine(1, share, 2 * cycles))
    by_share = named("cosine_with_min_lr", rise, min_lr_rate=share, num_cycles=cycles)
    agree(schedule, lrs(by_share, TOTAL, peak))
    by_lr = named("cosine_with_min_lr", rise, min_lr=share * peak, num_cycles=cycles)
    agree(schedule, lrs(by_lr, TOTAL, peak))


@drawn(peaks, st.integers(1, TOTAL - 1), shares)
def test_cosine_warmup_with_min_lr_is_one_step_ahead(peak, rise, share):
    theirs = lrs(named("cosine_warmup_with_min_lr", rise, min_lr_rate=share), TOTAL, peak)
    agree(peak * warmup(rise).then(cosine(1, share)), theirs, offset=1)


@drawn(peaks, st.integers(2, TOTAL - 1), shares, shares)
def test_cosine_warmup_with_min_lr_and_start_ends_at_min_lr(peak, rise, share, first):
    more = {"min_lr_rate": share, "warmup_lr_rate": first}
    theirs = lrs(named("cosine_warmup_with_min_lr", rise, **more), TOTAL, peak)
    schedule = warmup(rise - 1, start=first).then(cosine(1, share, over=TOTAL - rise))
    agree(peak * schedule, theirs)
    assert theirs[-1] == pytest.approx(share * peak)


RISES = {
    "linear": warmup,
    "cosine": lambda over, start: warmup(over, start, shape="cosine"),
    "1-sqrt": lambda over, start: one_minus_sqrt(1, start, over).reversed(),
}


@pytest.mark.parametrize("rise", RISES)
@pytest.mark.parametrize("fall", ["linear", "cosine", "1-sqrt"])
@drawn(peaks, st.integers(0, 50), st.integers(0, 50), shares)
def test_warmup_stable_decay_and_after_its_end(rise, fall, peak, up, down, share):
    more = {
        "num_decay_steps": down,
        "warmup_type": rise,
        "decay_type": fall,
        "min_lr_ratio": share,
    }
    theirs = lrs(named("warmup_stable_decay", up, **more), TOTAL + 5, peak)
    schedule = RISES[rise](up, share).then(constant(1)).then(cooldown(down, share, shape=fall))
    if down:
        agree(peak * schedule, theirs, total_steps=TOTAL)
    else:  # ours then ends at 1, since a part of length 0 is never evaluated
        agree(peak * schedule, theirs[:TOTAL])


def test_wsd_is_warmup_stable_decay():
    more = {"num_decay_steps": 20, "decay_type": "1-sqrt"}
    agree(wsd(10), lrs(named("warmup_stable_decay", 10, **more), TOTAL + 5), total_steps=TOTAL)


def test_warmup_stable_decay_of_more_than_half_a_cycle():
    more = {"num_decay_steps": 30, "num_cycles": 1.5}
    theirs = lrs(named("warmup_stable_decay", 10, **more), TOTAL)
    agree(warmup(10).then(constant(1)).then(cosine(1, 0, 3, over=30)), theirs)


# Intended differences --------------------------------------------------------------------------


def test_after_the_end_their_cosine_rises_again_and_ours_stays():
    theirs = lrs(named("cosine", total_steps=10), 21)
    assert theirs[10] == 0
    assert theirs[20] == 1
    assert cosine().resolve(total_steps=10).values([10, 15, 20]).tolist() == [0, 0, 0]


def test_their_restarts_may_be_one_step_late_by_rounding():
    theirs = lrs(named("cosine_with_restarts", total_steps=98, num_cycles=49), 98)
    ours = cosine().repeat(49).resolve(total_steps=98)
    late = [k for k in range(98) if abs(theirs[k] - ours(k)) > 1e-9]
    assert late
    for k in late:
        assert theirs[k] < 1e-9 < ours(k) == 1


def test_they_accept_a_warmup_longer_than_the_run():
    theirs = lrs(named("linear", 20, total_steps=10), 11)
    assert theirs[10] == 0.5
    with pytest.raises(ValueError, match="no room"):
        linear_to_zero(20).resolve(total_steps=10)


def test_they_accept_overlapping_phases():
    theirs = lrs(named("warmup_stable_decay", 8, total_steps=10, num_decay_steps=8), 10)
    assert theirs[7:9] == pytest.approx([0.875, 0.146447], abs=1e-6)
    with pytest.raises(ValueError, match="no room"):
        wsd(8, 8).resolve(total_steps=10)
