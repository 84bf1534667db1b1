"""Importing ratecraft is cheap, and every public name is there."""

import subprocess
import sys

import pytest
from public import public_names

import ratecraft

SLOW_TO_LOAD = (
    *("dataclasses", "inspect", "difflib", "fractions", "pathlib", "json", "secrets"),
    *("ratecraft.schedule._check", "ratecraft.schedule._picture"),
)
HEAVY = ("torch", "numpy", "scipy", "matplotlib", "sklearn", "rich", "cyclopts")


def loaded_after(code: str, modules: tuple[str, ...] = HEAVY) -> set[str]:
    script = f"{code}\nimport sys\nprint(*[m for m in {modules} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_importing_ratecraft_loads_the_standard_library_only() -> None:
    assert loaded_after("import ratecraft") == set()


def test_evaluating_a_schedule_loads_the_standard_library_only() -> None:
    code = (
        "from ratecraft import *\nparse('warmup(5).then(cosine(1, 0))').resolve(total_steps=10)(7)"
    )
    assert loaded_after(code) == set()


def test_evaluating_a_schedule_loads_few_modules() -> None:
    at_start = loaded_after("pass", SLOW_TO_LOAD)  # by .pth files of this environment
    code = "from ratecraft import cosine\ncosine().resolve(total_steps=10)(3)"
    assert loaded_after(code, SLOW_TO_LOAD) == at_start


def test_help_loads_neither_markdown_nor_what_a_command_needs() -> None:
    code = (
        "import ratecraft.cli\n"
        "try: ratecraft.cli.main(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0"
    )
    modules = ("rich.markdown", "torch", "numpy", "tomllib", "ratecraft._render._chart")
    assert loaded_after(code, modules) == set()


def test_importing_report_and_results_loads_no_torch_and_no_numpy() -> None:
    assert loaded_after("import ratecraft.report, ratecraft.results") == set()


def test_show_loads_neither_torch_nor_numpy() -> None:
    code = (
        "import ratecraft.cli\n"
        "try: ratecraft.cli.main(['show', 'cosine(1, 0)', '--total-steps', '100'])\n"
        "except SystemExit as stop: assert stop.code == 0"
    )
    assert loaded_after(code) == {"rich", "cyclopts"}


@pytest.mark.parametrize("name", public_names(ratecraft))
def test_every_exported_name_exists(name: str) -> None:
    assert hasattr(ratecraft, name)


def test_a_name_is_loaded_when_it_is_first_used() -> None:
    assert "torch" not in loaded_after("import ratecraft\nratecraft.wsd, dir(ratecraft)")
    assert "torch" in loaded_after("import ratecraft\nratecraft.ScheduleLR")


def test_dir_lists_names_that_are_not_loaded_yet() -> None:
    assert set(public_names(ratecraft)) <= set(dir(ratecraft))


def test_an_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'ratecraft' has no attribute 'cosin'"):
        _ = ratecraft.cosin


def test_python_m_ratecraft_is_the_command() -> None:
    command = [sys.executable, "-m", "ratecraft", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ratecraft.__version__


def test_a_star_import_gives_public_names_only() -> None:
    code = (
        "import torch\nfrom ratecraft import *\nassert torch.optim, wsd\nassert 'Any' not in dir()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
