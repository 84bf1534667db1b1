"""The files for contributors are valid, and name versions, commands and code that exist."""

import contextlib
import io
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from test_prose import END_OF_SENTENCE, LONGEST_SENTENCE, prose_lines, refused_in, without_code

import ratecraft

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONSTRAINTS = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
WORKFLOW = ROOT / ".github" / "workflows" / "test.yml"
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
PRE_COMMIT = ROOT / ".pre-commit-config.yaml"
PAGES = [
    ROOT / f"{name}.md"
    for name in ("AGENTS", "CODE_OF_CONDUCT", "CONTRIBUTING", "RELEASING", "SECURITY", "STABILITY")
]
TEMPLATE = ROOT / ".github" / "PULL_REQUEST_TEMPLATE.md"


def load_yaml(path: Path) -> Any:
    """Return a file's data; the key ``on`` of a workflow is True, as YAML 1.1 reads it."""
    return pytest.importorskip("yaml").safe_load(path.read_text())


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def minimum(requirements: list[str], package: str) -> str:
    return next(line.partition(">=")[2] for line in requirements if line.startswith(f"{package}>="))


def test_the_workflow_runs_both_test_commands_with_read_permission_only() -> None:
    workflow = load_yaml(WORKFLOW)
    assert set(workflow[True]) == {"push", "pull_request", "schedule", "workflow_dispatch"}
    assert workflow["permissions"] == {"contents": "read"}
    jobs = workflow["jobs"]
    commands = {key: [s["run"] for s in job["steps"] if "run" in s] for key, job in jobs.items()}
    assert commands == {"test": ["make test"], "test-slow": ["make test-slow"]}
    for job in jobs.values():
        assert "permissions" not in job
        (python,) = [s["with"] for s in job["steps"] if "setup-python" in s.get("uses", "")]
        assert python["python-version"] == "3.11"  # a string: 3.10 would be 3.1
        assert python["cache"] == "pip"
        for file in python["cache-dependency-path"].split():
            assert (ROOT / file).exists()


@pytest.mark.parametrize("form", [f for f in FORMS if f.stem != "config"], ids=name)
def test_issue_forms_have_what_github_requires(form: Path) -> None:
    data = load_yaml(form)
    assert set(data) == {"name", "description", "labels", "body"}
    ids = [item["id"] for item in data["body"] if item["type"] != "markdown"]
    assert len(ids) == len(set(ids)) > 0
    for item in data["body"]:
        attribute = "value" if item["type"] == "markdown" else "label"
        assert item["attributes"][attribute]
        assert set(item) <= {"type", "id", "attributes", "validations"}


def test_a_blank_issue_is_not_offered() -> None:
    assert {form.stem for form in FORMS} == {"bug", "config", "feature"}
    assert load_yaml(FORMS[1]) == {"blank_issues_enabled": False}


def test_the_pull_request_template_asks_for_failing_tests_and_the_changelog() -> None:
    text = TEMPLATE.read_text()
    for words in ("make test", "fail without the change", "CHANGELOG.md"):
        assert words in text


def test_pre_commit_runs_the_ruff_of_constraints() -> None:
    repos = {repo["repo"].rpartition("/")[2]: repo for repo in load_yaml(PRE_COMMIT)["repos"]}
    ruff = repos["ruff-pre-commit"]
    assert ruff["rev"] == f"v{CONSTRAINTS['ruff']}"
    assert [hook["id"] for hook in ruff["hooks"]] == ["ruff-check", "ruff-format"]


def test_the_code_of_agents_md_runs_and_prints_what_it_says() -> None:
    text = (ROOT / "AGENTS.md").read_text()
    assert len(text.splitlines()) <= 90
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, "AGENTS.md", "exec"), {"__name__": "__main__"})  # noqa: S102 - our own
    assert output.getvalue().splitlines() == re.findall(r"print\(.*\)\s+# (.*)", code)


def test_agents_md_names_what_the_root_and_the_repository_have() -> None:
    text = (ROOT / "AGENTS.md").read_text()
    (line,) = re.findall(r"^Import from `ratecraft`: .*", text, re.M)
    names = re.findall(r"`(\w+)`", line)[1:]
    assert len(names) >= 20
    for public_name in names:
        assert hasattr(ratecraft, public_name), public_name
    for path in re.findall(r"\b(?:src|docs|tests)/[\w/]+\.\w+", text):
        assert (ROOT / path).exists(), path


MISTAKES = {
    "ScheduleLR(optimizer, cosine())": (TypeError, "by keyword"),
    "ScheduleLR(optimizer, lr=3e-4, factor=cosine())": (TypeError, "cannot be combined"),
    "ScheduleLR(optimizer, factor=3e-4 * cosine(), total_steps=9)": (
        ValueError,
        "did you mean lr=",
    ),
    "ScheduleLR(optimizer, factor=cosine(), T_max=9)": (TypeError, "write total_steps="),
    "ScheduleLR(optimizer, max_lr=1, total_steps=9)": (TypeError, "write lr="),
    "ScheduleLR(optimizer, factor=cosine(), min_lr=0)": (TypeError, "write eta_min="),
    "ScheduleLR(optimizer, factor=cosine(), last_epoch=9)": (TypeError, "write initial_step="),
    "warmup(5) + cosine()": (TypeError, "write a.then"),
    "warmup(0.1)": (TypeError, "write percent"),
    "warmup(epochs(2)).resolve(total_steps=9)": (ValueError, "steps_per_epoch="),
    "cosine().resolve(1000)": (TypeError, "resolve.total_steps=1000"),
}


@pytest.mark.parametrize("code", MISTAKES)
def test_the_mistakes_of_agents_md_raise_errors_that_say_what_to_write(code: str) -> None:
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    names = {**{name: getattr(ratecraft, name) for name in ("cosine", "warmup", "epochs")},
             "ScheduleLR": ratecraft.ScheduleLR, "optimizer": optimizer}  # fmt: skip
    error, message = MISTAKES[code]
    with pytest.raises(error, match=message):
        eval(code, names)  # noqa: S307 - our own


@pytest.mark.parametrize("page", [*PAGES, TEMPLATE], ids=name)
def test_commands_and_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:^|`)make ([\w-]+)", text, re.M)) <= targets
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_sentences_are_short_and_one_a_line(page: Path) -> None:
    text = page.read_text()
    assert refused_in(re.sub(r"`[^`]*`", "", without_code(text))) == []
    for line in prose_lines(text):
        assert not END_OF_SENTENCE.search(line), line
        assert len(line.split()) <= LONGEST_SENTENCE, line


def test_supported_versions_are_those_of_pyproject() -> None:
    text = (ROOT / "STABILITY.md").read_text()
    project = PYPROJECT["project"]
    versions = {
        "Python": project["requires-python"].removeprefix(">="),
        "torch": minimum(project["optional-dependencies"]["torch"], "torch"),
        "numpy": minimum(project["dependencies"], "numpy"),
        "scipy": minimum(project["dependencies"], "scipy"),
    }
    for package, version in versions.items():
        assert f"{package} {version} or newer" in text


def test_the_version_is_the_same_everywhere() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^version: (.*)", citation, re.M) == [ratecraft.__version__]
    assert re.findall(r"^## (\S+)", changelog, re.M)[0] == ratecraft.__version__


def test_format_numbers_of_releasing_md_exist() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    constants = re.findall(r"`([A-Z_]+_FORMAT)`", (ROOT / "RELEASING.md").read_text())
    assert len(constants) == 3
    for constant in constants:
        assert re.search(rf"^{constant}: Final = ", source, re.M), constant
