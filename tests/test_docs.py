"""Every Python block in the README and in docs/ runs, and every command in them parses."""

import contextlib
import importlib
import inspect
import io
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from public import public_names

import ratecraft
import ratecraft.torch
from ratecraft import (
    ScheduleError,
    diagnostics,
    experiments,
    finder,
    forecasting,
    integrations,
    parse,
    parse_length,
    report,
    results,
)
from ratecraft._training._snapshot import preserve_rng
from ratecraft.schedule._parser import WORDS

ROOT = Path(__file__).parents[1]
EXPLANATION = ROOT / "docs" / "explanation"
PACKAGES = (
    ratecraft,
    ratecraft.torch,
    diagnostics,
    finder,
    forecasting,
    experiments,
    results,
    report,
    integrations,
)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Pages whose code needs libraries of the peers extra.
PEERS = {
    "accelerate-ddp.md": "accelerate",
    "compare-lightning-trainer.md": "lightning transformers",
    "find-lr-lightning-trainer.md": "lightning transformers",
    "hugging-face.md": "transformers",
    "lightning.md": "lightning",
    "log-the-learning-rate.md": "tensorboard",
}


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def executed_pages() -> list[object]:
    """Return the pages with Python code, marked where they need other libraries."""
    pages: list[object] = []
    for page in PAGES:
        if "```python\n" in page.read_text():
            marks = [pytest.mark.peers] if page.name in PEERS and "how-to" in page.parts else []
            pages.append(pytest.param(page, marks=marks, id=page_name(page)))
    return pages


def blocks(language: str) -> list[tuple[str, str]]:
    code_blocks = []
    for page in PAGES:
        for i, block in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)):
            code_blocks.append((f"{page_name(page)}-{i}", block))
    return code_blocks


@pytest.mark.parametrize("page", executed_pages())
def test_python_blocks_run_and_print_what_they_say(page: Path) -> None:
    for library in PEERS.get(page.name, "").split():
        pytest.importorskip(library)
    # One page is one program: a later block may use what an earlier one made.
    code = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.S))
    output = io.StringIO()
    with preserve_rng(), warnings.catch_warnings(), contextlib.redirect_stdout(output):
        warnings.simplefilter("ignore")
        exec(compile(code, page.name, "exec"), {"__name__": "__main__"})  # noqa: S102 - our own docs
    assert output.getvalue().split("\n")[:-1] == re.findall(r"print\(.*\)\s+# (.*)", code)


def test_the_readme_task_trains(tmp_path: Path) -> None:
    code = next(block for _, block in blocks("python") if "def task" in block)
    (tmp_path / "my_task.py").write_text(code)
    command = [sys.executable, "-m", "ratecraft", "find", "my_task.py:task"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "\nlr: " in done.stdout


def test_commands_name_options_that_exist() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    typed = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.S)).replace("\\\n", "")
    commands = re.findall(r"^ratecraft .*", typed, re.M) + re.findall(r"<sub>`(.*?)`", text)
    assert commands
    for line in commands:
        name, *rest = shlex.split(line)[1:]
        shown = subprocess.run(
            [sys.executable, "-m", "ratecraft", name, "--help"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for option in (word for word in rest if re.fullmatch(r"--?[a-z][a-z-]*", word)):
            assert option in shown, f"{line}: {option}"


def test_the_notation_shows_every_word_and_every_expression_in_its_table_is_read() -> None:
    text = (ROOT / "docs" / "notation.md").read_text()
    table = text[text.index("| you write |") : text.index("A part without a length")]
    shown = re.findall(r"`([^`]+)`", table)
    assert {word for word in WORDS if not any(f"{word}(" in code for code in shown)} == set()
    for code in shown:
        if re.search(r"\b[ab]\b|function|^shape=|^hold=", code):
            continue
        try:
            parse(code)
        except ScheduleError:
            parse_length(code)


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page_name(page)}: {target}"


@pytest.mark.parametrize("name", [package.__name__ for package in PACKAGES])
def test_the_reference_has_a_page_for_each_package(name: str) -> None:
    page = ROOT / "docs" / "reference" / f"{name.rpartition('.')[2]}.md"
    listed = "ratecraft.schedule" if name == "ratecraft" else name
    assert f"::: {listed}\n" in page.read_text()


def test_the_regret_tables_are_what_the_benchmark_prints() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "regret" / "regret.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    held_out, others = done.stdout.strip().split("\n\n")
    for page in ("how-find-lr-works", "benchmarks"):
        assert held_out in (EXPLANATION / f"{page}.md").read_text(), page
    lines = "".join(readme(words) for words in ("16 small tasks", "next best method", "30 tasks"))
    assert re.findall(r"\d+\.\d%", lines) == [*best_two(held_out), *best_two(others)]
    assert others in (EXPLANATION / "benchmarks.md").read_text()


def best_two(table: str) -> list[str]:
    """Return the decrease in loss reached by find_lr and by the next best rule, fastai's."""
    rows = re.findall(r"^\| (.+?) \| (0\.\d{3})", table, re.M)
    assert [rule for rule, _ in rows[:2]] == ["find_lr", "fastai minimum"]
    return [f"{100 * (1 - float(regret)):.1f}%" for _, regret in rows[:2]]


def readme(words: str) -> str:
    """Return the line of the README with these words."""
    (line,) = [line for line in (ROOT / "README.md").read_text().splitlines() if words in line]
    return line


def test_the_table_of_forecasts_is_what_the_benchmark_prints() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "forecast_text.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for page in ("how-forecasts-work", "benchmarks"):
        assert done.stdout.strip() in (EXPLANATION / f"{page}.md").read_text(), page
    mean_error = re.search(r"mean error (0\.\d+)", done.stdout)
    assert mean_error
    assert f"a mean error of {mean_error[1]} " in readme("**Forecasts**")


def test_the_tables_on_choosing_are_what_the_benchmark_prints() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "choosing.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    folder = ROOT / "docs" / "explanation"
    page = (folder / "benchmarks-choosing.md").read_text()
    printed = done.stdout.strip().split("\n\n")
    assert len(printed) == 14
    for part in printed:
        assert part in page, part
    text = page + (folder / "choosing-a-schedule.md").read_text()
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    # LRs, a beta, and differences of losses.
    others = {"0.006", "0.012", "0.024", "0.999", "0.015", "0.044", "0.060"}
    losses = set(re.findall(r"\b\d\.\d{3}\b", prose)) - others
    assert losses <= set(re.findall(r"\b\d\.\d{3}\b", done.stdout))


@pytest.mark.parametrize("name", [package.__name__ for package in PACKAGES])
def test_public_functions_document_their_arguments_and_have_an_example(name: str) -> None:
    package = importlib.import_module(name)
    for function_name in public_names(package):
        function = getattr(package, function_name)
        if not inspect.isroutine(function):
            continue
        docstring = inspect.getdoc(function) or ""
        for argument in inspect.signature(function).parameters:
            documented = rf"^\s+\*{{0,2}}{argument}:|`{argument}`"
            assert re.search(documented, docstring, re.M), f"{function_name}: {argument}"
        assert re.search(">>> |Example::", docstring), f"{function_name} has no example"
