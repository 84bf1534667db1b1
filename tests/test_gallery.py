"""The gallery is what its generator writes, and its torch code gives the same learning rates."""

import importlib
import importlib.util
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch.optim import SGD, lr_scheduler

from ratecraft import Curve, parse
from ratecraft.schedule._parser import VERBS, WORDS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "gallery.md"
FIGURES = ROOT / "docs" / "images" / "gallery"
ENTRY = re.compile(
    r"### .+\n\n!\[.+\]\(images/gallery/(?P<file>\w+)\.svg\)\n\n(?:(?P<note>(?!```).+)\n\n)?"
    r"```py\n(?P<notation>[^`]+)\n```\n(?:\nIn torch:\n\n```py\n(?P<torch>[^`]+)\n```\n)?"
)


def load() -> Any:
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "docs" / "gallery.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


gallery = load()


class Shown(NamedTuple):
    """An entry as a reader sees it."""

    file: str
    notation: dict[str, str]
    torch: str


def shown() -> list[Shown]:
    parsed = []
    for match in ENTRY.finditer(PAGE.read_text(encoding="utf-8")):
        lines = {"": match["notation"]}
        if "  # " in match["notation"]:
            lines = {
                label: text
                for text, _, label in (
                    line.rpartition("  # ") for line in match["notation"].splitlines()
                )
            }
        parsed.append(Shown(match["file"], lines, match["torch"] or ""))
    return parsed


SHOWN = shown()
ENTRIES = {entry.file: entry for family in gallery.families() for entry in family.entries}
WITH_TORCH = [entry for entry in SHOWN if entry.torch]


def resolved(text: str, file: str) -> Curve:
    return parse(text).resolve(
        total_steps=ENTRIES[file].steps,
        steps_per_epoch=10,
        samples_per_step=32,
        tokens_per_step=1000,
    )


def written_in_torch(
    code: str, steps: int, metric: Sequence[float] | None
) -> list[tuple[float, ...]]:
    """Return the lr of each group at each step of a run with that code."""
    body, head = [torch.nn.Parameter(torch.zeros(1))], [torch.nn.Parameter(torch.zeros(1))]
    model = torch.nn.Linear(1, 1)
    names: dict[str, Any] = {"math": math, "SGD": SGD, "model": model, "body": body, "head": head}
    names |= {name: getattr(lr_scheduler, name) for name in lr_scheduler.__all__}
    names["optimizer"] = SGD(model.parameters(), lr=1.0, momentum=0.9)
    each_step: Callable[[int], None] = lambda k: None  # noqa: E731
    if 'group["lr"] = ' in code:
        each_step = lambda k: exec(code, names | {"k": k, "epoch": k // 10})  # noqa: E731, S102
    elif re.search(r"\boptimizer = ", code):
        exec(code, names)  # noqa: S102
    else:
        names["scheduler"] = eval(code, names)  # noqa: S307
    optimizer, scheduler = names["optimizer"], names.get("scheduler")
    lrs = []
    for k in range(steps):
        each_step(k)
        lrs.append(tuple(group["lr"] for group in optimizer.param_groups))
        optimizer.step()
        if metric is not None:
            scheduler.step(metric[k])
        elif scheduler is not None:
            scheduler.step()
    return lrs


@pytest.mark.parametrize("entry", WITH_TORCH, ids=lambda entry: entry.file)
def test_torch_code_and_notation_give_the_same_lrs(entry: Shown) -> None:
    notation = dict(entry.notation)
    metric = notation.pop(gallery.METRIC, None)
    steps = ENTRIES[entry.file].steps
    losses = None if metric is None else list(resolved(metric, entry.file))
    theirs = written_in_torch(entry.torch, steps, losses)
    # A line for each group, or the last one: of a product that is the product.
    texts = list(notation.values())[-len(theirs[0]) :]
    ours = list(zip(*[resolved(text, entry.file) for text in texts], strict=True))
    assert len(ours) == steps
    for k, (mine, torchs) in enumerate(zip(ours, theirs, strict=True)):
        assert mine == pytest.approx(torchs, rel=1e-9, abs=1e-12), f"step {k}"


def test_the_product_is_drawn_as_the_product_of_its_factors() -> None:
    for file in ("chain", "plateau_cosine"):
        first, second, product = ENTRIES[file].notation.values()
        curves = [resolved(text, file) for text in (first, second, product)]
        for a, b, both in zip(*curves, strict=True):
            assert a * b == pytest.approx(both, rel=1e-12), file


def test_the_page_has_every_entry() -> None:
    assert [entry.file for entry in SHOWN] == list(ENTRIES)


def test_page_and_figures_are_what_the_generator_writes() -> None:
    assert gallery.differences(gallery.written()) == []


def test_check_reports_differences(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "gallery.py").write_text((ROOT / "docs" / "gallery.py").read_text(encoding="utf-8"))
    command = [sys.executable, str(docs / "gallery.py")]
    subprocess.run(command, check=True)
    made = sorted(path for path in docs.rglob("*") if path.suffix in (".md", ".svg"))
    assert len(made) > 50
    for path in made:
        assert path.read_text() == (ROOT / "docs" / path.relative_to(docs)).read_text(), path
    (docs / "gallery.md").write_text("another page")
    (docs / "images" / "gallery" / "step.svg").unlink()
    (docs / "images" / "gallery" / "old.svg").write_text("<svg/>")
    done = subprocess.run([*command, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines()[:-1] == [
        "gallery.md differs",
        "images/gallery/step.svg is missing",
        "images/gallery/old.svg is no entry's",
    ]


def test_every_word_and_verb_of_the_language_is_drawn() -> None:
    text = "\n".join(line for entry in SHOWN for line in entry.notation.values())
    assert [word for word in WORDS if not re.search(rf"(?<![\w.]){word}\(", text)] == []
    assert [verb for verb in VERBS if f".{verb}(" not in text] == []


def test_every_scheduler_of_torch_has_an_entry() -> None:
    text = "\n".join(entry.torch for entry in SHOWN)
    left_out = {"LRScheduler", "MultiplicativeLR"}  # a base class; a product of a function
    assert [x for x in lr_scheduler.__all__ if f"{x}(" not in text and x not in left_out] == []


def test_a_figure_is_small_and_fetches_nothing() -> None:
    for path in FIGURES.glob("*.svg"):
        text = path.read_text(encoding="utf-8")
        assert len(text) < 8_000, path.name
        root = ET.fromstring(text)  # noqa: S314 - our own file
        names = {name for part in root.iter() for name in part.attrib}
        assert not {name for name in names if "href" in name or name == "src"}, path.name
        assert re.findall(r"https?:[^\"]*", text) == ["http://www.w3.org/2000/svg"], path.name


def test_a_figure_shows_both_sides_of_a_jump() -> None:
    times, values = gallery.points(parse("staircase([1, 0.1], at=[2])").resolve(total_steps=4))
    assert (times, values) == ([0, 1, 2, 2, 3, 4], [1, 1, 1, 0.1, 0.1, 0.1])
