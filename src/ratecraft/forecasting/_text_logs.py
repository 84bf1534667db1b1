"""Columns of text logs, such as "step 250: train loss 3.12, val loss 3.20"."""

from __future__ import annotations

import math
import re
from typing import Final, NamedTuple

from ._log_columns import STEP_COLUMNS, Column, Columns, column_key

NAN: Final = r"[nN][aA][nN]|[iI]nf(?:inity)?"
WORD: Final = rf"(?!(?:{NAN}|[nN]one|null|[tT]rue|[fF]alse)\b)[A-Za-z_][\w./@-]*+"
# A name of up to five words, then ":", "=" or spaces, then a number without a unit, such as
# "lr 1e-4", "val loss: 3.2" or "iter: [ 50/1000]". A value that is a word, as in "split=train
# loss=3.2", starts no name. "++" keeps the time linear in the length of a line.
PAIR: Final = re.compile(
    rf"(?<![\w.%/-])(?<![A-Za-z_][:=])({WORD}(?: {WORD}){{0,4}})"
    r"\s*+[:=]?\s*+[\[(]?\s*+"
    r"([+-]?(?:(?:[0-9]++(?:,[0-9]{3}(?![0-9]))*+(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?"
    rf"|{NAN}))(?![.,]?\w)",
    re.ASCII,
)
# "steps=1000" is a setting of a run, not its step; "s" is the step in logs of llm.c.
STEP_WORDS: Final = tuple(key for key in (*STEP_COLUMNS, "s") if key != "steps")


class _Name(NamedTuple):
    title: str
    is_step: bool


def text_columns(text: str) -> Columns:
    """Return the columns of a text log: the numbers on its lines by the names before them.

    A line is read if it has a step, or if it follows such a line directly or after other lines with
    numbers. The step is the number after a word such as "step" or "iter", which may end a longer
    name, as in "completed step: 5".
    """
    columns: Columns = {}
    names: dict[str, _Name] = {}
    step, step_title = math.nan, ""
    # Quotes are those of JSON or Python: {"step": 5, "loss": "3.2"}.
    for line in text.replace('"', " ").replace("'", " ").split("\n"):
        pairs = PAIR.findall(line)
        has_step, numbers = False, []
        for words, digits in pairs:
            name = names.get(words) or names.setdefault(words, _name(words))
            number = float(digits.replace(",", ""))
            if not name.is_step:
                numbers.append((name.title, number))
            elif not has_step or STEP_WORDS.index(name.title) < STEP_WORDS.index(step_title):
                has_step, step, step_title = True, number, name.title
        if not pairs:
            step_title = ""
        if step_title:
            for title, number in numbers:
                column = columns.get(title)
                if column is None:
                    column = columns[title] = Column([], [], step_title)
                column.steps.append(step)
                column.values.append(number)
    return columns


def _name(text: str) -> _Name:
    words = text.lower().split()
    last = column_key(words[-1])
    is_step = last in STEP_WORDS and "per" not in words and (last != "s" or len(words) == 1)
    return _Name(last if is_step else " ".join(words), is_step)
