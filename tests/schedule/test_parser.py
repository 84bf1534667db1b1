"""parse and parse_length: valid text, errors and their marks, limits."""

import argparse
import math

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
    wsd,
)
from ratecraft.schedule._parser import MAX_CHARACTERS, MAX_DEPTH, MAX_PARTS, VERBS, WORDS

# Valid text --------------------------------------------------------------------------------------


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
def test_parse_agrees_with_python(text, schedule):
    assert parse(text) == schedule


def test_a_text_may_have_line_breaks():
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


def test_words_and_verbs_are_complete():
    words = {"constant", "linear", "cosine", "exponential", "polynomial", "staircase"}
    words |= {"warmup", "cooldown", "steps", "epochs", "percent", "samples", "tokens"}
    assert words <= set(WORDS) <= set(public_names(ratecraft))
    assert "custom" not in WORDS
    returns = {
        name: getattr(method, "__annotations__", {}).get("return")
        for name, method in vars(Schedule).items()
        if not name.startswith("_")
    }
    assert {name for name, returned in returns.items() if returned == "Schedule"} == set(VERBS)


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
def test_parse_length_reads_lengths(text, length):
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
        ("2 + 3", r"\+ is not evaluated here; write the result"),
        ("", "the text is empty"),
    ],
)
def test_parse_length_raises_for_other_text(text, words):
    with pytest.raises(ScheduleError, match=words):
        parse_length(text)


def test_a_long_chain_does_not_count_as_deep():
    s = constant(0, over=1).then(*(constant(i, over=1) for i in range(1, 400)))
    assert parse(repr(s)) == s


LEVELS = [math.sin(i) for i in range(5000)]
BOUNDS = [steps(i + math.sqrt(2)) for i in range(4999)]
LENGTHS = [epochs(1 + abs(math.cos(i))) for i in range(5000)]
LONG = {
    "every": staircase(LEVELS, every=epochs(1 / 3)),
    "at": staircase(LEVELS, at=BOUNDS),
    "lengths": staircase(LEVELS, lengths=LENGTHS),
    "inside others": 0.1 * staircase(LEVELS, lengths=LENGTHS).repeat(2).clip(high=0.5),
    "after a recipe": wsd(5).over(90).then(staircase(LEVELS, lengths=LENGTHS)),
}


@pytest.mark.parametrize("name", LONG)
def test_a_schedule_of_5000_levels_can_be_read(name):
    s = LONG[name]
    assert parse(repr(s)) == parse(str(s)) == s


@pytest.mark.parametrize("count", [699, 700, 701, 1500])
def test_every_number_of_parts_can_be_read(count):
    s = constant(0, over=1).then(*(warmup(i) for i in range(1, count)))
    assert parse(repr(s)) == parse(str(s)) == s
    assert repr(s).count(".then(") == (count - 1 if count <= 700 else 1)


# The mark under the error ------------------------------------------------------------------------


def error_and_marked_text(text):
    """Return the message, and the text above the mark."""
    with pytest.raises(ScheduleError) as error_info:
        parse(text)
    message, shown, marks = str(error_info.value).rsplit("\n", 2)
    assert set(marks) == {" ", "^"}
    assert shown.startswith("  ")
    first, end = marks.index("^"), len(marks)
    return message, shown[first:end]


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("consant(1)", "'consant' is not a word.*did you mean 'constant'?", "consant"),
        ("Cosine(1)", "did you mean 'cosine'?", "Cosine"),
        ("foo(1)", "the words are constant, cooldown, cosine", "foo"),
        ("warmup(4).then(cosin(1, 0))", "did you mean 'cosine'?", "cosin"),
        ("cosine", r"cosine is a function: write cosine\(...\)", "cosine"),
        ("cosine().thn(warmup(4))", "has no .thn().*did you mean 'then'?", "thn"),
        ("cosine().resolve(3)", "has no .resolve()", "resolve"),
        ("cosine().__class__()", "has no .__class__()", "__class__"),
        ("cosine().start", "not part of the notation", "cosine().start"),
        ("epochs(3).then(cosine())", "only a schedule has .then()", "epochs(3)"),
        ("cosine(strt=1)", "has no strt=; did you mean 'start'?", "cosine(strt=1)"),
        ("linear(1, 2, 3, 4)", "too many positional arguments", "linear(1, 2, 3, 4)"),
        ("warmup()", "missing a required argument: 'over'", "warmup()"),
        ("cosine(1, start=2)", "multiple values for argument 'start'", "cosine(1, start=2)"),
        ("cosine(start=1, start=2)", r"cosine\(\): keyword argument repeated: start", "2"),
        ("cosine(start=1, end=0, start=1)", "keyword argument repeated: start", "1"),
        ("warmup(4).repeat(n=2, n=30)", r".repeat\(\): keyword argument repeated: n", "30"),
        ("warmup(4).repeat(2, n=30)", "multiple values for argument 'n'", None),
        ("warmup(steps(n=4, n=5))", r"steps\(\): keyword argument repeated: n", "5"),
        ("wsd(5, warmup=6)", "multiple values for argument 'warmup'", "wsd(5, warmup=6)"),
        ("cosine(strt=1, strt=2)", "keyword argument repeated: strt", "2"),
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
        ("...", "Ellipsis is not valid", "..."),
        ("constant(None)", "value must be a number, not None", "constant(None)"),
        ("constant(True)", "value must be a number, not True", "constant(True)"),
        ("constant(1j)", "1j is not valid", "1j"),
        ("constant(b'1')", "b'1' is not valid", "b'1'"),
        ("constant(-cosine())", "only a number can have a sign", "-cosine()"),
        ("-cosine()", "write -1 \\* schedule", "-cosine()"),
        ("cosine() + warmup(4)", r"\+ does not join schedules; write a.then\(b\)", "warmup(4)"),
        ("warmup(4) >> cosine()", ">> does not join schedules", "cosine()"),
        ("warmup(4) | cosine()", r"\| does not join schedules", "cosine()"),
        ("cosine() / 2", "/ does not join schedules", "2"),
        ("cosine() ** 2", r"\*\* does not join schedules", "2"),
        ("cosine() // 2", "this operator does not join schedules", "2"),
        ("constant(2 * 3)", "not evaluated here; write the result", "2 * 3"),
        ("constant(1 / 3)", "/ is not evaluated here; write the result", "1 / 3"),
        ("warmup(epochs(2) * 3)", "length|not evaluated", "epochs(2) * 3"),
        ("cosine(*[1, 0])", r"\* is not allowed here", "*[1, 0]"),
        ("cosine(**constant(1))", r"\*\* is not allowed here", "constant(1)"),
        ("constant(x)", "'x' is not a word", "x"),
        ("constant(lambda)", "invalid syntax", None),
        ("constant(1", "invalid syntax", None),
        ("constant(1))", "has no opening bracket", ")"),
        ("constant(1)) * (constant(2)", "has no opening bracket", ")"),
        ("constant(1 2)", "invalid syntax", None),
        ("constant(1) constant(2)", "invalid syntax", None),
        ("constant(1); constant(2)", "';' has no meaning", ";"),
        ("constant(1) # one", "'#' has no meaning", "#"),
        ("constant(1)\\", r"'\\\\' has no meaning", "\\"),
        ("{constant(1)}", "'{' has no meaning", "{"),
        ("const\u00e4nt(1)", "'\u00e4' has no meaning", "\u00e4"),
        ("constant(\u0661)", "has no meaning", "\u0661"),
        ("constant(1) < constant(2)", "not part of the notation", "constant(1) < constant(2)"),
        ("constant(1) if 1 else 2", "not part", "constant(1) if 1 else 2"),
        ("[constant(1) for x in [1]]", "not part", "[constant(1) for x in [1]]"),
        ("constant(f'1')", "not part of the notation", "f'1'"),
        ("[1][0]", "not part of the notation", "[1][0]"),
        ("cosine()()", "not part of the notation", "cosine()()"),
        ("__import__('os')", "'__import__' is not a word", "__import__"),
        ("open('x')", "'open' is not a word", "open"),
    ],
)
def test_invalid_text_raises_with_a_mark_under_the_error(text, words, expected):
    with pytest.raises(ScheduleError, match=words):
        parse(text)
    _, marked = error_and_marked_text(text)
    if expected is not None:
        assert marked == expected


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
def test_the_mark_is_on_the_right_line_and_column(text):
    message, marked = error_and_marked_text(text)
    assert marked == "cosin"
    assert message == "'cosin' is not a word of the notation; did you mean 'cosine'?"


def test_an_unknown_method_is_marked_on_its_line():
    _, marked = error_and_marked_text("warmup(500)\n  .thn(\n    cosine()\n  )")
    assert marked == "thn"


def test_a_long_line_is_truncated_in_the_message():
    with pytest.raises(ScheduleError) as error_info:
        parse("warmup(500)" + ".clip(high=1)" * 100 + ".then(cosin(1, 0))")
    assert max(map(len, str(error_info.value).splitlines())) <= 80


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the text is empty; write for example"),
        (" \n ", "the text is empty"),
        ("3", r"'3' is a number; write constant\(3\) for a constant lr"),
        ("3e-4", r"write constant\(0.0003\) for a constant lr"),
        ("epochs(3)", "expected a schedule, but .* is a length"),
        ("'cosine'", "is not a schedule"),
        ("[cosine()]", "is not a schedule"),
        ("cosine(), cosine()", "is not a schedule"),
        ("custom(<main.f>)", r"cannot be read from text; build it in Python"),
        ("warmup(4).then(custom(<main.<lambda>>, over=3))", "build it in Python"),
        ("custom(f)", r"custom\(\) needs a Python function and cannot be read from text"),
        ("9" * 5000 + " * cosine()", "invalid syntax|cannot be parsed"),
    ],
)
def test_text_that_is_not_a_schedule_raises(text, words):
    with pytest.raises(ScheduleError, match=words):
        parse(text)


@pytest.mark.parametrize("text", [None, 3, b"cosine()", cosine()])
def test_parse_raises_for_other_types(text):
    for parser in (parse, parse_length):
        with pytest.raises(TypeError, match="a schedule's text must be a string, not"):
            parser(text)


# Limits ------------------------------------------------------------------------------------------


def test_the_length_of_a_text_is_limited():
    assert parse("constant(1" + " " * (MAX_CHARACTERS - 11) + ")") == constant(1)
    with pytest.raises(ScheduleError, match=r"500,001 characters; the limit is 500,000"):
        parse("constant(1" + " " * (MAX_CHARACTERS - 10) + ")")


def test_the_depth_of_brackets_is_limited():
    assert parse("(" * (MAX_DEPTH - 1) + "cosine()" + ")" * (MAX_DEPTH - 1)) == cosine()
    with pytest.raises(ScheduleError, match="brackets are 51 deep; the limit is 50"):
        parse("(" * MAX_DEPTH + "cosine()" + ")" * MAX_DEPTH)


@pytest.mark.parametrize(
    "text",
    [
        "constant(1)" + ".reversed()" * 1000,
        "2 * " * 1000 + "cosine()",
        "constant(" + "-" * 10_000 + "1)",
        "constant(1)" + ".then()" * 50_000,
        "constant(1)" + ".x" * 5000,
        "constant(1)" + "()" * 5000,
        "constant(1)" + "[0]" * 5000,
        "1 if 1 else " * 1500 + "1",
        "not " * 4000 + "1",
        "1 < " * 4000 + "1",
    ],
)
def test_the_size_of_a_text_is_limited(text):
    with pytest.raises(ScheduleError, match=r"too large|cannot be parsed|not part|invalid syntax"):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "staircase([" + "1," * MAX_PARTS + "], every=1)",
        "constant(1).then(" + "steps(1)," * (MAX_PARTS // 2) + ")",
        "1," * MAX_PARTS,
    ],
    ids=["levels", "calls", "tuple"],
)
def test_the_number_of_parts_is_limited(text):
    with pytest.raises(ScheduleError, match=r"too large; the limit is 50,000 parts"):
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


def assert_parses_or_raises(text):
    for parser, result_type in ((parse, Schedule), (parse_length, Duration)):
        try:
            value = parser(text)
        except ScheduleError:
            continue
        assert isinstance(value, result_type)
        assert parser(repr(value)) == value


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
@example("constant(1)) * (constant(2)")
@example("9" * 400)
@example("(" * 49 + "-" * 9000 + "1" + ")" * 49)
def test_any_sequence_of_tokens_parses_or_raises_schedule_error(text):
    assert_parses_or_raises(text)


@given(st.text(max_size=60))
def test_any_text_parses_or_raises_schedule_error(text):
    assert_parses_or_raises(text)


@given(schedules(2).map(repr), st.data())
def test_a_valid_text_with_one_change_parses_or_raises_schedule_error(text, data):
    at = data.draw(st.integers(0, len(text)))
    width = data.draw(st.integers(0, 3))
    inserted = data.draw(st.sampled_from(["", *PIECES]) | st.text(max_size=2))
    assert_parses_or_raises(text[:at] + inserted + text[at + width :])


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("levels([(10, 1)])", "write staircase(values, lengths=...)"),
        ("cosine().between(0, 1)", "write .rescale(low, high)"),
        ("warmup(untuned(0.999))", "did you mean 'untuned_warmup'?"),
    ],
)
def test_a_renamed_word_is_answered_with_the_new_one(text, advice):
    with pytest.raises(ScheduleError) as caught:
        parse(text)
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr", "wsdd(5)"], "--lr: 'wsdd' is not a word of the notation; did you mean 'wsd'"),
        (["--lr", "3e-4"], "--lr: expected a schedule, but '3e-4' is a number; write constant("),
        (["--steps", "epoch(3)"], "--steps: 'epoch' is not a word of the notation; did you mean"),
    ],
)
def test_argparse_shows_the_message_of_a_wrong_text(arguments, message, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=parse)
    parser.add_argument("--steps", type=parse_length)
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(arguments)
    assert f"error: argument {message}" in capsys.readouterr().err
