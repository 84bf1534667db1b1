"""Text that any terminal can show."""

import pytest

from ratecraft._render._text import display_width, encodable, printable, shorten


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("a\rb\x08\x7f\x00", r"a\rb\x08\x7f\x00"),
        ("\x9b31m", r"\x9b31m"),  # a C1 control: the same as ESC [
        ("abc\u202egpj.exe\u2066\u200f", r"abc\u202egpj.exe\u2066\u200f"),
        ("caf\udce9.json", r"caf\udce9.json"),  # a file name that is not UTF-8
        ("line\u2028separator", r"line\u2028separator"),
    ],
    ids=["escape", "control", "c1", "direction", "surrogate", "separator"],
)
def test_characters_that_control_a_terminal_are_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        *("", "two\nlines\tand a tab", "Hägele ± 学習率 🙂", "no\xa0break"),
        *("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "👩\u200d🔬", "\ue0b0 private use"),
    ],
)
def test_other_text_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "koi8-r", "utf-8"])
def test_any_encoding_can_write_any_text(encoding: str) -> None:
    text = "".join(map(chr, [*range(32, 0x3000), *range(0xD800, 0xD810), 0x1F642]))
    shown = encodable(printable(text), encoding)
    assert shown.encode(encoding)
    assert "?" not in shown.replace("?", "", 1)  # the question mark of the text itself


def test_a_plot_in_ascii_has_the_same_size() -> None:
    plot = "0.1 ┤●⠉⠒⠤⣀\n    └┬━━━━"
    assert encodable(plot, "ascii") == "0.1 +o'--_\n    ++===="
    braille = "".join(chr(0x2800 + dots) for dots in range(256))
    assert len(encodable(braille[1:], "ascii")) == 255


def test_characters_that_an_encoding_has_are_kept() -> None:
    assert encodable("± é ┤", "latin-1") == "± é +"
    assert encodable("± é …", "ascii") == r"+/- \xe9 ..."


@pytest.mark.parametrize("limit", range(1, 30))
@pytest.mark.parametrize(
    "text", ["warmup(500).then(cosine(1, 0.1))", "学習率の予定表" * 3, "e\u0301" * 40]
)
def test_a_short_text_keeps_both_ends_and_fits(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert display_width(short) <= limit
    start, _, end = short.partition("…")
    assert text.startswith(start)
    assert text.endswith(end)


def test_joiners_and_variation_selectors_take_no_column() -> None:
    assert display_width("a\u200cb\u200d") == 2
    assert display_width("\N{HEAVY BLACK HEART}\ufe0f") == 1


def test_a_text_that_fits_is_not_cut() -> None:
    assert shorten("学習", 4) == "学習"
