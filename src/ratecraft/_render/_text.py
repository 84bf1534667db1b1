"""Text for a terminal: what it can show, how wide it is, and names that are cut."""

import codecs
import unicodedata
from typing import Final

ENCODING_ERRORS: Final = "ratecraft.ascii"  # an error handler, for files and for `encodable`
_BRAILLE: Final = 0x2800
_LEFT_DOTS: Final = (0x01, 0x02, 0x04, 0x40)  # of a braille character, from top to bottom
_RIGHT_DOTS: Final = (0x08, 0x10, 0x20, 0x80)
_CONTROLS: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode categories
_ZERO_WIDTH: Final = ("Cf", "Me", "Mn")
_SAFE_CONTROLS: Final = "\n\t\u200c\u200d"  # the last two join or separate letters and emoji


def printable(text: str) -> str:
    r"""Return a text in which characters that could control a terminal are shown as escapes.

    These are control characters, marks that change the direction of writing, and halves of
    surrogate pairs. Line breaks, tabs, and joiners of letters and emoji stay.

    >>> print(printable("\x1b[31mred"))
    \x1b[31mred
    """
    if text.isprintable():
        return text
    return "".join(c if _is_safe(c) else _escape(c) for c in text)


def _is_safe(c: str) -> bool:
    return c in _SAFE_CONTROLS or unicodedata.category(c) not in _CONTROLS


def _escape(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")


def encodable(text: str, encoding: str) -> str:
    r"""Return a text in which characters that an encoding lacks are replaced by ASCII.

    The characters of a plot become ASCII of the same width, and others an escape.

    >>> print(encodable("0.1 ┤⠉⠒⠤⣀ ± é", "ascii"))
    0.1 +'--_ +/- \xe9
    """
    return text.encode(encoding, ENCODING_ERRORS).decode(encoding)


def _braille_as_ascii(dots: int) -> str:
    """Return the ASCII character that looks most like a braille character."""
    left = [row for row, bit in enumerate(_LEFT_DOTS) if dots & bit]
    right = [row for row, bit in enumerate(_RIGHT_DOTS) if dots & bit]
    rows = left + right
    if max(rows) - min(rows) > 1:  # steep
        if not left or not right or sum(left) * len(right) == sum(right) * len(left):
            return "|"
        return "\\" if sum(left) * len(right) < sum(right) * len(left) else "/"
    mean = sum(rows) / len(rows)
    return "'" if mean < 1 else "-" if mean <= 2 else "." if mean < 3 else "_"


_ASCII: Final = {
    **dict(zip("●▲■◆○△□◇┊│┤└┬─━", "o^#*@%&x:|+++-=", strict=True)),
    **{chr(_BRAILLE + dots): _braille_as_ascii(dots) for dots in range(1, 256)},
    **{"±": "+/-", "\u00d7": "x", "·": "-", "•": "*", "…": "..."},
}


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_ASCII.get(c) or _escape(c) for c in missing), error.end


codecs.register_error(ENCODING_ERRORS, _replace)


def display_width(text: str) -> int:
    """Return the number of columns that a text takes in a terminal."""
    return len(text) if text.isascii() else sum(map(_char_width, text))


def _char_width(c: str) -> int:
    if unicodedata.combining(c) or unicodedata.category(c) in _ZERO_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1


def shorten(text: str, limit: int) -> str:
    """Return a text of at most ``limit`` columns, cut in the middle: ends often differ.

    >>> shorten("warmup(500).then(cosine(1, 0.1))", 20)
    'warmup(500…(1, 0.1))'
    """
    if display_width(text) <= limit:
        return text
    end, start = "", ""
    for c in reversed(text):
        if display_width(c + end) > (limit - 1) // 2:
            break
        end = c + end
    for c in text:
        if display_width(start + c) > limit - 1 - display_width(end):
            break
        start += c
    return f"{start}…{end}"
