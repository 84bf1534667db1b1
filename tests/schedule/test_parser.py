"""The notation: what it reads, what it refuses, and where it points."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from public import public_names
from strategies import schedules

import ratecraft
from ratecraft import (
    Duration,
    Schedule,
    ScheduleError,
    constant,
    cooldown,
    cosine,
    epochs,
    exponential,
    linear,
    one_cycle,
    parse,
    parse_length,
    percent,
    polynomial,
    samples,
    staircase,
    steps,
    tokens,
    warmup,
)
from ratecraft.schedule._parser import MAX_DEPTH, MAX_LENGTH, VERBS, WORDS

# What is read ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("constant(1)", constant(1)),
        ("  constant()\n", constant(1)),
        ("(constant(1))", constant(1)),
        ("((constant)(1))", constant(1)),
        ("3e-4 * warmup(500).then(cosine(1, 0.1))", 3e-4 * warmup(500).then(cosine(1, 0.1))),
        ("cosine(1, 0) * 2", 2 * cosine()),
        ("-1 * cosine()", -1 * cosine()),
        ("+2 * cosine()", 2 * cosine()),
        ("cosine() * warmup(4)", cosine() * warmup(4)),
        ("linear(end=0, start=1)", linear(1, 0)),
        ("warmup(over=percent(10), start=0.1)", warmup(percent(10), start=0.1)),
        ("warmup(1_000)", warmup(1000)),
        ("exponential(1, .001, epochs(3) - 5)", exponential(1, 0.001, epochs(3) - 5)),
        ("polynomial(1, 0, 0.5, over=9)", polynomial(1, 0, 0.5, over=9)),
        ("staircase([1, 0.1], every=epochs(30))", staircase([1, 0.1], every=epochs(30))),
        ("staircase((1, 0.1), at=(30,))", staircase([1, 0.1], at=[30])),
        ("staircase([1], at=[])", staircase([1], at=[])),
        ("linear(0, -1, over=samples(9) + tokens(2))", linear(0, -1, samples(9) + tokens(2))),
        ("cosine().repeat(4, grow=2)", cosine().repeat(4, grow=2)),
        ("warmup(4).repeat(None)", warmup(4).repeat()),
        ("warmup(4).clip(None, 0.5)", warmup(4).clip(high=0.5)),
        ("one_cycle(three_phase=True)", one_cycle(three_phase=True)),
        ("warmup(4).repeat()", warmup(4).repeat()),
        ("cosine().clip(high=0.5)", cosine().clip(high=0.5)),
        ("cosine().rescale(0.1, high=1)", cosine().rescale(0.1, 1)),
        ("warmup(4).over(steps(2.5)).reversed()", warmup(4).over(steps(2.5)).reversed()),
        ("warmup(4).then(cosine(), cooldown(3))", warmup(4).then(cosine(), cooldown(3))),
        ("warmup(4).then()", warmup(4)),
    ],
)
def test_it_reads_what_python_would(text, schedule):
    assert parse(text) == schedule


def test_a_text_may_run_over_several_lines():
    text = """
        3e-4 * warmup(500)
            .then(constant(1))
            .then(
                cooldown(
                    percent(20),
                )
            )
    """
    expected = 3e-4 * warmup(500).then(constant(1)).then(cooldown(percent(20)))
    assert parse(text) == expected
    assert parse(text.replace("\n", "\r\n")) == expected
    assert parse(text.replace("\n", "\r")) == expected


def test_every_word_and_every_verb_of_the_language_is_known():
    words = {"constant", "linear", "cosine", "exponential", "polynomial", "staircase"}
    words |= {"warmup", "cooldown", "steps", "epochs", "percent", "samples", "tokens"}
    assert words <= set(WORDS) <= set(public_names(ratecraft))
    assert "custom" not in WORDS
    returns = {
        name: getattr(method, "__annotations__", {}).get("return")
        for name, method in vars(Schedule).items()
        if not name.startswith("_")
    }
    assert {name for name, kind in returns.items() if kind == "Schedule"} == set(VERBS)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("10000", steps(10_000)),
        (" 1_0 ", steps(10)),
        ("epochs(3)", epochs(3)),
        ("tokens(3e9)", tokens(3e9)),
        ("epochs(1) + 100", epochs(1) + 100),
        ("100 - epochs(1)", 100 - epochs(1)),
        ("percent(100)\n- 1", percent(100) - 1),
        ("0 - steps(3)", Duration(steps=-3)),
    ],
)
def test_a_length_is_read_alone(text, length):
    assert parse_length(text) == length


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0.1", r"write percent\(10\)"),
        ("cosine()", "must be an int"),
        ("[3]", "must be an int"),
        ("'3'", "must be an int"),
        ("-3", "must be >= 0"),
        ("epochs(-3)", "must be >= 0"),
        ("2 * epochs(3)", "write the result|cannot be multiplied"),
        ("epochs(3) * 2", "write the result|cannot be multiplied"),
        ("2 + 3", r"\+ is not calculated here; write the result"),
        ("", "the text is empty"),
    ],
)
def test_what_is_no_length_is_refused(text, words):
    with pytest.raises(ScheduleError, match=words):
        parse_length(text)


def test_a_long_chain_is_not_a_deep_one():
    s = constant(0, over=1).then(*(constant(i, over=1) for i in range(1, 400)))
    assert parse(repr(s)) == s


# Where the mark points ---------------------------------------------------------------------------


def refusal(text):
    """Return the message, and what the mark under the line points at."""
    with pytest.raises(ScheduleError) as refused:
        parse(text)
    message, shown, marks = str(refused.value).rsplit("\n", 2)
    assert set(marks) == {" ", "^"}
    assert shown.startswith("  ")
    first, end = marks.index("^"), len(marks)
    return message, shown[first:end]


@pytest.mark.parametrize(
    ("text", "words", "place"),
    [
        ("consant(1)", "'consant' is not a word.*did you mean 'constant'?", "consant"),
        ("Cosine(1)", "did you mean 'cosine'?", "Cosine"),
        ("foo(1)", "the words are constant, cooldown, cosine", "foo"),
        ("warmup(4).then(cosin(1, 0))", "did you mean 'cosine'?", "cosin"),
        ("cosine", r"cosine is a word that is called: write cosine\(...\)", "cosine"),
        ("cosine().thn(warmup(4))", "has no .thn().*did you mean 'then'?", "thn"),
        ("cosine().resolve(3)", "has no .resolve()", "resolve"),
        ("cosine().__class__()", "has no .__class__()", "__class__"),
        ("cosine().start", "no part of the notation", "cosine().start"),
        ("epochs(3).then(cosine())", "only a schedule has .then()", "epochs(3)"),
        ("cosine(strt=1)", "has no strt=; did you mean 'start'?", "cosine(strt=1)"),
        ("linear(1, 2, 3, 4)", "too many positional arguments", "linear(1, 2, 3, 4)"),
        ("warmup()", "missing a required argument: 'over'", "warmup()"),
        ("cosine(1, start=2)", "multiple values for argument 'start'", "cosine(1, start=2)"),
        ("warmup(4).rescale(1)", "missing a required argument: 'high'", "warmup(4).rescale(1)"),
        ("warmup(0.1)", r"write percent\(10\)", "warmup(0.1)"),
        ("cosine('a')", "must be a number, not 'a'", "cosine('a')"),
        ("cosine([1])", r"must be a number, not \[1\]", "cosine([1])"),
        ("cosine(epochs(1))", "must be a number", "cosine(epochs(1))"),
        ("cosine(cosine())", "must be a number", "cosine(cosine())"),
        ("2 * exponential(1, 0)", "both ends", "exponential(1, 0)"),
        ("cosine().then(constant(1))", "at most one part", "cosine().then(constant(1))"),
        ("cosine(1e999)", "must be finite", "cosine(1e999)"),
        ("-True", "only a number can have a sign", "-True"),
        ("...", "Ellipsis is no part", "..."),
        ("constant(None)", "value must be a number, not None", "constant(None)"),
        ("constant(True)", "value must be a number, not True", "constant(True)"),
        ("constant(1j)", "1j is no part", "1j"),
        ("constant(b'1')", "b'1' is no part", "b'1'"),
        ("constant(-cosine())", "only a number can have a sign", "-cosine()"),
        ("-cosine()", "write -1 \\* schedule", "-cosine()"),
        ("cosine() + warmup(4)", r"\+ does not join schedules; write a.then\(b\)", "warmup(4)"),
        ("warmup(4) >> cosine()", ">> does not join schedules", "cosine()"),
        ("warmup(4) | cosine()", r"\| does not join schedules", "cosine()"),
        ("cosine() / 2", "/ does not join schedules", "2"),
        ("cosine() ** 2", r"\*\* does not join schedules", "2"),
        ("cosine() // 2", "this operator does not join schedules", "2"),
        ("constant(2 * 3)", "not calculated here; write the result", "2 * 3"),
        ("constant(1 / 3)", "/ is not calculated here; write the result", "1 / 3"),
        ("warmup(epochs(2) * 3)", "length|not calculated", "epochs(2) * 3"),
        ("cosine(*[1, 0])", r"\* is not read here", "*[1, 0]"),
        ("cosine(**constant(1))", r"\*\* is not read here", "constant(1)"),
        ("constant(x)", "'x' is not a word", "x"),
        ("constant(lambda)", "not the notation", None),
        ("constant(1", "not the notation", None),
        ("constant(1))", "closes a bracket that was never opened", ")"),
        ("constant(1)) * (constant(2)", "closes a bracket that was never opened", ")"),
        ("constant(1 2)", "not the notation", None),
        ("constant(1) constant(2)", "not the notation", None),
        ("constant(1); constant(2)", "';' has no meaning", ";"),
        ("constant(1) # one", "'#' has no meaning", "#"),
        ("constant(1)\\", r"'\\\\' has no meaning", "\\"),
        ("{constant(1)}", "'{' has no meaning", "{"),
        ("const\u00e4nt(1)", "'\u00e4' has no meaning", "\u00e4"),
        ("constant(\u0661)", "has no meaning", "\u0661"),
        ("constant(1) < constant(2)", "no part of the notation", "constant(1) < constant(2)"),
        ("constant(1) if 1 else 2", "no part", "constant(1) if 1 else 2"),
        ("[constant(1) for x in [1]]", "no part", "[constant(1) for x in [1]]"),
        ("constant(f'1')", "no part of the notation", "f'1'"),
        ("[1][0]", "no part of the notation", "[1][0]"),
        ("cosine()()", "no part of the notation", "cosine()()"),
        ("__import__('os')", "'__import__' is not a word", "__import__"),
        ("open('x')", "'open' is not a word", "open"),
    ],
)
def test_a_bad_text_is_refused_with_a_mark_under_the_place(text, words, place):
    with pytest.raises(ScheduleError, match=words):
        parse(text)
    _, marked = refusal(text)
    if place is not None:
        assert marked == place


@pytest.mark.parametrize(
    "text",
    [
        "warmup(500)\n  .then(cosin(1, 0))\n  .clip(high=1)",
        "warmup(500)\r\n  .then(cosin(1, 0))",
        "warmup(500)\r  .then(cosin(1, 0))",
        "\n\n   warmup(500).then(\n\n\ncosin(1, 0))",
        "warmup(500)" + ".clip(high=1)" * 20 + ".then(cosin(1, 0))",
        "warmup(500).then(cosin(1, 0))" + ".clip(high=1)" * 20,
    ],
)
def test_the_mark_finds_its_line_and_its_column(text):
    message, marked = refusal(text)
    assert marked == "cosin"
    assert message == "'cosin' is not a word of the notation; did you mean 'cosine'?"


def test_a_wrong_verb_is_marked_on_its_own_line():
    _, marked = refusal("warmup(500)\n  .thn(\n    cosine()\n  )")
    assert marked == "thn"


def test_a_long_line_is_shown_in_part():
    with pytest.raises(ScheduleError) as refused:
        parse("warmup(500)" + ".clip(high=1)" * 100 + ".then(cosin(1, 0))")
    assert max(map(len, str(refused.value).splitlines())) <= 80


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the text is empty; write for example"),
        (" \n ", "the text is empty"),
        ("3", r"'3' is a number; a fixed lr is written constant\(3\)"),
        ("3e-4", r"a fixed lr is written constant\(0.0003\)"),
        ("epochs(3)", "is a length, where a schedule was expected"),
        ("'cosine'", "is no schedule"),
        ("[cosine()]", "is no schedule"),
        ("cosine(), cosine()", "is no schedule"),
        ("custom(<main.f>)", r"cannot be read back from text; build it in Python"),
        ("warmup(4).then(custom(<main.<lambda>>, over=3))", "build it in Python"),
        ("custom(f)", r"custom\(\) needs a Python function and has no text"),
        ("9" * 5000 + " * cosine()", "not the notation|cannot be read"),
    ],
)
def test_what_is_no_schedule_says_what_it_is(text, words):
    with pytest.raises(ScheduleError, match=words):
        parse(text)


@pytest.mark.parametrize("text", [None, 3, b"cosine()", cosine()])
def test_a_text_is_a_string(text):
    for read in (parse, parse_length):
        with pytest.raises(TypeError, match="a schedule's text must be a string, not"):
            read(text)


# Limits ------------------------------------------------------------------------------------------


def test_a_text_is_of_bounded_length():
    assert parse("constant(1" + " " * (MAX_LENGTH - 11) + ")") == constant(1)
    with pytest.raises(ScheduleError, match=r"20,001 characters; at most 20,000 are read"):
        parse("constant(1" + " " * (MAX_LENGTH - 10) + ")")


def test_brackets_are_of_bounded_depth():
    assert parse("(" * (MAX_DEPTH - 1) + "cosine()" + ")" * (MAX_DEPTH - 1)) == cosine()
    with pytest.raises(ScheduleError, match="brackets 51 deep; at most 50"):
        parse("(" * MAX_DEPTH + "cosine()" + ")" * MAX_DEPTH)


@pytest.mark.parametrize(
    "text",
    [
        "constant(1)" + ".reversed()" * 1000,
        "2 * " * 1000 + "cosine()",
        "constant(" + "-" * 10_000 + "1)",
        "staircase([" + "1," * 3000 + "], every=1)",
        "constant(1)" + ".then()" * 2500,
        "constant(1)" + ".x" * 5000,
        "constant(1)" + "()" * 5000,
        "constant(1)" + "[0]" * 5000,
        "1 if 1 else " * 1500 + "1",
        "not " * 4000 + "1",
        "1 < " * 4000 + "1",
    ],
)
def test_a_text_is_of_bounded_size(text):
    with pytest.raises(ScheduleError, match=r"too large|cannot be read|no part|not the notation"):
        parse(text)


# Any text ----------------------------------------------------------------------------------------

PIECES = [*WORDS, *VERBS, "custom", "x", "(", ")", "[", "]", "(", ")", "()", ",", ", ", ".", "="]
PIECES += ["*", "**", "+", "-", "/", ">>", "|", "<", "0", "1", "30", "0.5", "1e-3", "1e999", "'a'"]
PIECES += ["over=", "start=", "at=[", "every=", "grow=", "high=", "\n", "\r", "\t", " ", "\x0c"]
PIECES += [
    "if",
    "else",
    "for",
    "in",
    "lambda",
    "None",
    "True",
    "#",
    "\\",
    "\x00",
    "f'",
    '"""',
    ":=",
]
PIECES += ["warmup(4)", "cosine()", ".then(", "constant(1)", "epochs(2)", ".repeat(2)", ".over(3)"]


def assert_read_or_refused(text):
    for read, kind in ((parse, Schedule), (parse_length, Duration)):
        try:
            value = read(text)
        except ScheduleError:
            continue
        assert isinstance(value, kind)
        assert read(repr(value)) == value


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
@example("constant(1)) * (constant(2)")
@example("9" * 400)
@example("(" * 49 + "-" * 9000 + "1" + ")" * 49)
def test_any_text_of_the_notations_own_tokens_is_read_or_refused(text):
    assert_read_or_refused(text)


@given(st.text(max_size=60))
def test_any_text_at_all_is_read_or_refused(text):
    assert_read_or_refused(text)


@given(schedules(2).map(repr), st.data())
def test_a_good_text_with_one_change_is_read_or_refused(text, data):
    at = data.draw(st.integers(0, len(text)))
    width = data.draw(st.integers(0, 3))
    inserted = data.draw(st.sampled_from(["", *PIECES]) | st.text(max_size=2))
    assert_read_or_refused(text[:at] + inserted + text[at + width :])
