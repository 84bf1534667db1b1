"""check(): every kind of finding, with and without its cause."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import EPOCH, schedules, spans

from ratecraft import (
    check,
    constant,
    cooldown,
    cosine,
    custom,
    epochs,
    linear,
    one_cycle,
    percent,
    restarts,
    staircase,
    steps,
    tokens,
    triangular,
    warmup,
    wsd,
)


def findings_of(schedule, total_steps=None, **units):
    return [(finding.level, finding.message) for finding in check(schedule, total_steps, **units)]


def levels_of(schedule, total_steps=None, **units):
    return [finding.level for finding in check(schedule, total_steps, **units)]


def marked(finding):
    return finding.text[finding.start : finding.end]


@pytest.mark.parametrize(
    ("schedule", "total"),
    [
        (cosine(1, 0.1), 1000),
        (constant(1), None),
        (constant(1), 10),
        (warmup(100, start=0.01).then(cosine(1, 0.01)), 1000),
        (one_cycle(), 1000),
        (3e-4 * warmup(10, start=0.1).then(constant(1)).then(cooldown(percent(20), end=0.01)), 500),
        (restarts(100, grow=2, end=0.01), 700),
        (triangular(10), 1000),
        (staircase([1, 0.1, 0.01], at=[30, 60]), 90),
        (linear(1, 0.5).then(linear(0.5, 1, over=50)), 200),
    ],
    ids=repr,
)
def test_a_sound_schedule_has_no_finding(schedule, total) -> None:
    assert check(schedule, total) == []


def test_an_unresolvable_schedule_is_one_error() -> None:
    (finding,) = check(cosine(1, 0))
    assert finding.level == "error"
    assert "needs total_steps=" in finding.message
    (finding,) = check(warmup(500).then(cosine(1, 0)), 300)
    assert "no room: -200 steps left" in finding.message
    (finding,) = check(warmup(epochs(1)), 300)
    assert "needs steps_per_epoch=" in finding.message


def test_an_unreached_part_is_an_error() -> None:
    schedule = constant(1, over=2000).then(cooldown(100, end=0.1))
    first, second = check(schedule, 1000)
    assert (first.level, second.level) == ("error", "warning")
    assert "would begin at step 2000, and the run ends at 1000" in first.message
    assert marked(first) == "cooldown(100, end=0.1)"
    assert "the schedule is 2100 steps long, and the run ends at 1000" in second.message


def test_a_part_shorter_than_a_step_is_a_warning() -> None:
    schedule = warmup(steps(0.2), start=0.1).then(constant(1))
    (finding,) = check(schedule, 10)
    assert finding.level == "warning"
    assert "is 0.2 steps long" in finding.message
    assert marked(finding) == "warmup(steps(0.2), start=0.1)"
    assert check(warmup(1, start=0.1).then(constant(1)), 10) == []


def test_a_warmup_longer_than_the_run_is_an_error() -> None:
    (finding,) = check(warmup(500, start=0.01), 300)
    assert finding.level == "error"
    assert finding.message == "the warmup takes 500 steps, and the run has 300: it is cut short"
    assert "percent(5), which is 15 steps" in finding.fix
    both = warmup(500, start=0.01).then(cosine(1, 0.1, over=100))
    cut, unreached = sorted(check(both, 300), key=lambda finding: finding.start)
    assert marked(cut) == "warmup(500, start=0.01)"
    assert "never reached" in unreached.message


def test_a_run_longer_than_the_schedule_is_reported() -> None:
    assert findings_of(cosine(1, 0, over=800), 1000)[0] == (
        "error",
        "the schedule ends at step 800 at lr 0: the last 200 steps train nothing",
    )
    assert findings_of(cosine(1, 0.1, over=800), 1000) == [
        ("note", "the schedule ends at step 800, and lr 0.1 holds for the last 200 steps")
    ]
    assert findings_of(cosine(1, 0.1, over=800), 800) == []
    assert findings_of(cosine(1, 0.1, over=steps(799.5)), 800) == []


def test_a_run_shorter_than_the_schedule_is_a_warning() -> None:
    assert findings_of(linear(1, 0.1, over=800), 400) == [
        ("warning", "the schedule is 800 steps long, and the run ends at 400, at lr 0.55")
    ]


def test_jumps_between_parts_are_reported() -> None:
    (finding,) = check(cosine(1, 0.1).then(constant(0.5, over=100)), 1000)
    assert finding.level == "warning"
    assert finding.message == "the lr jumps from 0.1 to 0.5 at step 900"
    assert marked(finding) == "constant(0.5, over=100)"
    # Leaving a constant level always takes a jump, so it is only a note.
    steps_down = staircase([0.1, 0.01], lengths=[epochs(1), epochs(2)])
    assert levels_of(steps_down, epochs(3), steps_per_epoch=10) == ["note"]
    # A change below a hundredth of the peak is not a jump.
    assert check(linear(1, 0.1).then(constant(0.105, over=10)), 100) == []


def test_jumps_are_reported_inside_every_combination() -> None:
    jump = cosine(1, 0.1).then(linear(0.5, 0.1, over=10))
    for schedule in (
        2 * jump,
        jump * constant(1),
        jump.clip(low=0),
        jump.rescale(0, 1),
        jump.over(100),
        constant(1, over=0).then(jump),
        jump.repeat(1),
    ):
        hits = [finding for finding in check(schedule, 100) if "jumps" in finding.message]
        assert [marked(finding) for finding in hits] == ["linear(0.5, 0.1, over=10)"], schedule


def test_the_right_one_of_two_equal_parts_is_marked() -> None:
    part = linear(1, 0.5, over=10)
    schedule = part.then(part).then(constant(0.5))
    (finding,) = check(schedule, 100)
    assert marked(finding) == repr(part)
    assert finding.start > len(repr(part))


def test_steps_at_lr_zero_are_reported() -> None:
    assert findings_of(warmup(10), 10) == [("note", "step 0 has lr 0 and trains nothing")]
    assert marked(check(warmup(10).then(constant(1)), 20)[0]) == "warmup(10)"
    assert findings_of(linear(1, 0, over=percent(100) - 1), 11) == [
        ("note", "the last step, 10, has lr 0 and trains nothing")
    ]
    middle = linear(1, 0, over=50).then(linear(0, 1))
    assert ("warning", "step 50 has lr 0 and trains nothing") in findings_of(middle, 100)
    assert findings_of(linear(1, 0), 100) == []  # the end value is reached one past the last step


def test_negative_lrs_are_an_error() -> None:
    first = check(linear(1, -1), 10)[0]
    assert first.level == "error"
    assert first.message == "the lr is negative: -0.8 at step 9"
    assert "clip(low=0)" in first.fix


def test_growth_after_decay_is_a_warning() -> None:
    (finding,) = check(cosine(1, 0.1, half_cycles=2), 1000)
    assert finding.level == "warning"
    assert "grows again" in finding.message
    assert "after a fall to 0.1" in finding.message
    inside = check(warmup(9, start=0.1).then(cosine(1, 0.1, half_cycles=2)), 1000)
    assert [marked(finding) for finding in inside] == ["cosine(1, 0.1, 2)"]
    assert "grows again" in check(custom(lambda t: abs(t - 50) + 1), 100)[0].message
    assert check(cosine(1, 0.1, half_cycles=2).repeat(3), 300) == []  # cycles rise on purpose


def test_findings_are_sorted_worst_first() -> None:
    order = levels_of(warmup(10).then(constant(1, over=5)).then(linear(0.5, -1)), 100)
    assert order == sorted(order, key=["error", "warning", "note"].index)
    assert set(order) == {"error", "note"}


def test_str_of_a_finding_has_the_text_the_mark_and_the_fix() -> None:
    (finding,) = check(cosine(1, 0.1).then(constant(0.5, over=100)), 1000)
    assert str(finding) == (
        "warning: the lr jumps from 0.1 to 0.5 at step 900\n"
        "  cosine(1, 0.1).then(constant(0.5, over=100))\n"
        "                      ^^^^^^^^^^^^^^^^^^^^^^^\n"
        "  begin this part at the value where the part before it ends"
    )


def test_endless_curves_and_the_token_clock_are_checked() -> None:
    assert check(triangular(5)) == []
    assert levels_of(triangular(5, low=0)) == ["warning", "note"]
    (finding,) = check(wsd(tokens(1e6), end=0.1), tokens(1e9))
    assert finding.message == "step 0 has lr 0 and trains nothing"


@given(schedules(), st.one_of(st.none(), spans))
def test_check_never_raises(schedule, total) -> None:
    total = None if total is None else steps(total)
    for finding in check(schedule, total, steps_per_epoch=EPOCH):
        assert finding.level in ("error", "warning", "note")
        assert 0 <= finding.start < finding.end <= len(finding.text)
        assert finding.text == repr(schedule)


def test_a_sequence_of_5000_parts_is_checked() -> None:
    levels = staircase([1 / (i + 3) for i in range(5000)], lengths=[3] * 5000)
    findings = check(levels, 15_000)
    assert {finding.level for finding in findings} == {"note"}
    parts = [finding.text[finding.start : finding.end] for finding in findings]
    assert parts[:2] == [repr(part) for part in levels.parts[1:3]]
