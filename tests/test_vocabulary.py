"""Identifiers use the field's words; one meaning a word, one value a constant."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = sorted((ROOT / "src").rglob("*.py"))
FILES = [*SOURCE, *sorted((ROOT / "tests").rglob("*.py"))]
# Refused as a word of an identifier.
REFUSED = {
    *("voice", "ledger", "told", "teller", "said", "patient", "bed"),
    *("testbed", "lot", "doubts", "wing", "house", "speak", "speaker"),
    *("hear", "heard", "silence", "bend", "carried", "looked"),
}
# Refused as an identifier of its own.
EMPTY = {"one", "place", "found", "kind", "own", "how", "what"}
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def identifiers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ClassDef(name=name):
                yield name
            case ast.keyword(arg=str(name)) | ast.ExceptHandler(name=str(name)):
                yield name
            case ast.alias(name=name, asname=other):
                yield from (other or name).split(".")
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name


def refused(text: str) -> set[str]:
    names = set(identifiers(ast.parse(text)))
    return {
        name
        for name in names
        if name in EMPTY or {word.lower() for word in WORD.findall(name)} & REFUSED
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_identifier_is_or_contains_a_refused_word(path: Path) -> None:
    assert refused(path.read_text()) == set()


def test_refused_words_are_found_wherever_a_name_stands() -> None:
    assert refused("def f(what): return g.told_zero(kind=x)") == {"what", "told_zero", "kind"}
    assert refused("class LedgerState: pass\nfrom a import b as one") == {"LedgerState", "one"}
    assert refused("bedrock = somewhat = 1") == set()


def test_no_constant_has_two_values_and_no_class_occurs_twice() -> None:
    values, classes = defaultdict(set), defaultdict(list)
    for path in SOURCE:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(path.name)
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            for target in targets:
                if isinstance(target, ast.Name) and target.id.lstrip("_").isupper():
                    values[target.id].add(ast.unparse(node.value) if node.value else "")
    assert {name: several for name, several in values.items() if len(several) > 1} == {}
    assert {name: paths for name, paths in classes.items() if len(paths) > 1} == {}
