"""The prose of README and docs: short sentences, one a line, no refused phrase, short pages."""

import ast
import re
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
OTHERS = [ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md")]
SOURCES = sorted((ROOT / "src").rglob("*.py"))

MEDIAN_SENTENCE = 16  # words
LONGEST_SENTENCE = 40  # words
LONGEST_PAGE = 1200  # words, tables and code included; reference and benchmarks may be longer
LONG_PAGES = ("reference/", "benchmarks", "gallery.md", "notation.md", "semantics.md")

# Second-language idiom, riddles and personified code, and what to write instead.
REFUSED = {
    r"anew": "again, from scratch",
    r"beside": "next to, against, besides",
    r"but for": "except",
    r"carried": "multiplied in, kept",
    r"foresee\w*": "forecast",
    r"honestly": "",
    r"in vain": "without effect",
    r"(?:which|that|it|one) is (?-i:none)": "does not exist, has no ...",
    r"is (?:not )?(?:told|said|spared)": "the active voice",
    r"knows? (?:nothing|no|one|only|that|the|how|it)": "uses, has, takes into account",
    r"nobody": "no one, or the active voice",
    r"no answer is an answer": "",
    r"promis(?:es|ed?)": "is expected to",
    r"stop(?:s|ped)? to": "stops improving, not stops to improve",
    r"taken? up again": "resumed",
    r"to the last bit": "bit for bit",
    r"wants?": "needs, requires; a person may want",
    r"what is carried": "",
    r"who learns": "",
    r"without a word": "silently",
}
ALLOWED = {r"wants?": r"(?:[Yy]ou|[Pp]eople|[Uu]sers?|[Tt]hey|if you) wants?"}
ABBREVIATIONS = re.compile(r"\b(?:e\.g|i\.e|et al|vs|cf|approx|Fig|Eq|No)\.")
END_OF_SENTENCE = re.compile(r"[.!?][\"')\]*_`]*\s+(?=[\"'(\[*_`]*[A-Z])")


def without_code(text: str) -> str:
    """Return Markdown without code blocks, comments, images and front matter."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.S)
    text = re.sub(r"^( *)(```|~~~).*?^\1\2", "", text, flags=re.S | re.M)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    return re.sub(r"!\[[^\]]*\]\([^)]*\)(?:\{[^}]*\})?", "", text)


def plain(line: str) -> str:
    """Return a line with links as their text and inline code as one word."""
    line = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line)
    line = re.sub(r"`+[^`]*`+", "code", line)
    return ABBREVIATIONS.sub("abbreviation", line).strip()


def prose_lines(text: str) -> list[str]:
    """Return the lines that are sentences: no headings, tables, directives or definitions."""
    lines = []
    for line in without_code(text).splitlines():
        stripped = re.sub(r"^\s*(?:[-*>]|\d+\.)\s+", "", line).strip()
        if not stripped or re.match(r"\s*(?:#|\||:::|\[[^\]]+\]:|<|!!!|\?\?\?|===)", line):
            continue
        lines.append(plain(stripped))
    return lines


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=name)
def test_no_refused_phrase(page: Path) -> None:
    text = re.sub(r"`[^`]*`", "", without_code(page.read_text()))
    assert refused_in(text) == []


@pytest.mark.parametrize("page", SOURCES, ids=name)
def test_no_refused_phrase_in_docstrings(page: Path) -> None:
    nodes = ast.walk(ast.parse(page.read_text()))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [ast.get_docstring(node) or "" for node in nodes if isinstance(node, kinds)]
    assert refused_in("\n".join(docstrings)) == []


def refused_in(text: str) -> list[str]:
    matches = []
    for phrase, advice in REFUSED.items():
        for match in re.finditer(rf"\b(?:{phrase})\b", text, re.I):
            around = text[max(0, match.start() - 30) : match.end() + 20].replace("\n", " ")
            if phrase in ALLOWED and re.search(ALLOWED[phrase], around):
                continue
            matches.append(f"{around!r}: write {advice or 'it plainly'}")
    return matches


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_sentences_are_short_and_one_a_line(page: Path) -> None:
    lines = prose_lines(page.read_text())
    crowded = [line for line in lines if END_OF_SENTENCE.search(line)]
    assert crowded == [], "one sentence a line"
    lengths = [len(line.split()) for line in lines]
    assert [line for line in lines if len(line.split()) > LONGEST_SENTENCE] == []
    assert statistics.median(lengths or [0]) <= MEDIAN_SENTENCE


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pages_are_short_and_name_the_learning_rate(page: Path) -> None:
    text = page.read_text()
    assert re.search(r"learning[ -]rate", text, re.I)
    if not any(part in name(page) for part in LONG_PAGES):
        assert len(without_code(text).split()) + code_words(text) <= LONGEST_PAGE


def code_words(text: str) -> int:
    return sum(len(block.split()) for block in re.findall(r"```.*?```", text, re.S))


def test_the_check_finds_what_it_is_for() -> None:
    text = "# Title\n\nOne sentence. Another one.\nIt has stopped to improve.\n\n| a. B | c |\n"
    assert prose_lines(text) == ["One sentence. Another one.", "It has stopped to improve."]
    assert END_OF_SENTENCE.search(prose_lines(text)[0])
    assert refused_in(text)
    assert not refused_in("You want a lower one.")
