"""Run tests with old and new versions of Python and packages, and write supported-versions.md.

``python docs/reference/supported_versions.py [NAME ...]`` runs all environments or those with
these names. Each gets a new folder, pip installs the packages into it, then the project, and the
folder is removed after the tests. The other rows of the page stay as they are. With ``--print``
the page stays as it is and the results are printed alone.

An interpreter is one of PYTHONS (paths, separated by spaces), or python3.12 and so on. pip's
settings (PIP_INDEX_URL, ...) pass through. supported_versions.json has the results.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple
from xml.etree import ElementTree

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = Path(__file__).with_name("supported-versions.md")
RESULTS: Final = Path(__file__).with_suffix(".json")
PACKAGES: Final = ("torch", "numpy", "scipy", "rich", "cyclopts", "matplotlib")
TEST_PACKAGES: Final = ("pytest", "pytest-xdist", "hypothesis")
SELECTION: Final = (
    "tests/torch",
    "tests/finder/test_find_lr.py",
    "tests/finder/test_range_test.py",
    "tests/finder/test_search.py",
    "tests/finder/test_suggestion.py",
    "tests/diagnostics",
    "tests/schedule/test_curve.py",
    "tests/schedule/test_formulas.py",
    "tests/schedule/test_nodes.py",
    "tests/schedule/test_shapes.py",
    "tests/experiments/test_compare.py",
    "tests/forecasting/test_bound.py",
    "tests/report/test_figures.py",
    "tests/report/test_terminal.py",
    "tests/results/test_significance.py",
)
TIMEOUT: Final = 1800  # seconds for the tests of an environment

HEAD: Final = """# Supported versions of Python, torch and numpy

ratecraft sets the learning rates of torch's optimizers, so it is tested with old and new versions.
`make test-versions` builds each environment with pip, runs the tests in it and writes this page.

* `lowest` has the lower bound of every dependency, and `lowest-except-torch` has a newer torch.
* The other environments have what their name says, and the newest of the rest that pip chose.
* `pip install .` changed no package that was installed before.
* The tests ran on Linux and on the CPU, even where torch is a CUDA build.

<!-- Written by supported_versions.py: change that file, not this page. -->

"""
SKIPPED: Final = """## Skipped tests

"""
TESTS: Final = """## What was run

`make test` runs all tests with the versions in `constraints.txt`.
The environments run these files and folders:

"""


class Environment(NamedTuple):
    """A version of Python, and requirements of packages that come before the project."""

    python: str
    requirements: tuple[str, ...]


class NotRun(Exception):
    """pip failed or changed a package that was there, or pytest could not start."""


def lowest() -> dict[str, str]:
    """Return the lower bound of every direct dependency, without those of development."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *extras["torch"], *extras["plot"], *extras["digits"]]
    return dict(re.fullmatch(r"([\w-]+)>=([\d.]+)", line).groups() for line in requirements)


def pinned(package: str) -> str:
    """Return a package's version in constraints.txt."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return re.search(rf"^{package}==(\S+)$", text, re.M)[1]


def environments() -> dict[str, Environment]:
    """Return the environments by name, in the order of the table."""
    result = {}
    for name, torch in (("lowest", {}), ("lowest-except-torch", {"torch": pinned("torch")})):
        exact = [f"{package}=={version}" for package, version in (lowest() | torch).items()]
        result[name] = Environment("3.11", tuple(exact))
    for version in ("2.8", "2.10", "2.12", "2.14", "2.15"):
        result[f"torch-{version}"] = Environment("3.11", (f"torch=={version}.*",))
    for version in ("3.12", "3.13", "3.14"):
        result[f"python-{version}"] = Environment(version, ())
    return result


def interpreter(version: str) -> str | None:
    """Return a Python of this version, or None."""
    code = "import sys; print('{}.{}'.format(*sys.version_info))"
    for path in (*os.environ.get("PYTHONS", "").split(), f"python{version}", sys.executable):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            if output(path, "-c", code).strip() == version:
                return path
    return None


def output(*command: str | Path, timeout: float | None = None, check: bool = True) -> str:
    """Return what a command prints, without this process's own Python paths."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(  # noqa: S603 - our own commands
        [str(part) for part in command],
        cwd=ROOT, env=environment, timeout=timeout, check=check,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    return done.stdout


def versions(python: Path) -> dict[str, str]:
    """Return the version of each package that an environment has."""
    code = (
        "import json, importlib.metadata as m\n"
        "print(json.dumps({d.name.lower(): d.version for d in m.distributions()}))"
    )
    return json.loads(output(python, "-c", code))


def install(path: str, folder: Path, requirements: tuple[str, ...]) -> None:
    """Install the requirements, then the project, which may only add packages, then pytest."""
    python = folder / "bin" / "python"
    constraint = ("--constraint", str(ROOT / "constraints.txt"))
    pip = (python, "-m", "pip", "install", "--quiet", "--no-compile")
    try:
        output(path, "-m", "venv", folder)
        if requirements:
            output(*pip, *requirements)
        before = versions(python)
        output(*pip, f"{ROOT}[torch,plot,digits]")
        after = versions(python)
        output(*pip, *constraint, *TEST_PACKAGES)
    except subprocess.CalledProcessError as error:
        raise NotRun(error.stdout[-2000:]) from None
    if changed := [name for name, version in before.items() if after.get(name) != version]:
        raise NotRun(f"pip install . changed {', '.join(sorted(changed))}")


def outcomes(junit: Path) -> dict[str, Any]:
    """Return the numbers of passed and failed tests, and of skipped tests by reason."""
    results: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for case in ElementTree.parse(junit).iter("testcase"):  # noqa: S314 - pytest wrote it
        skipped = case.find("skipped")
        failed = case.find("failure") is not None or case.find("error") is not None
        results["failed" if failed else "passed" if skipped is None else "skipped"] += 1
        if skipped is not None:
            reasons[skipped.get("message", "")] += 1
    counts = {name: results[name] for name in ("passed", "failed")}
    return counts | {"skipped": dict(sorted(reasons.items()))}


def run(environment: Environment) -> dict[str, Any]:
    """Return the results of the tests in an environment, or why they did not run."""
    path = interpreter(environment.python)
    if path is None:
        return {"not_run": f"the machine has no Python {environment.python}"}
    with tempfile.TemporaryDirectory(prefix="ratecraft-versions-") as folder:
        python, junit = Path(folder, "bin", "python"), Path(folder, "results.xml")
        install(path, Path(folder), environment.requirements)
        options = ("-n", "2", "-rfE", "--tb=short", "-p", "no:cacheprovider", f"--junitxml={junit}")
        text = output(python, "-m", "pytest", *options, *SELECTION, timeout=TIMEOUT, check=False)
        if not junit.exists():
            raise NotRun(text[-2000:])
        result = outcomes(junit)
        if result["failed"]:
            sys.stdout.write(text[-20_000:])
        installed = versions(python)
        version = output(python, "-c", "import platform; print(platform.python_version())")
    return {"python": version.strip(), **{name: installed[name] for name in PACKAGES}, **result}


def row(*cells: object) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(map(str, cells))} |\n"


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the table of the environments, and sentences on those that did not run."""
    head = ("Environment", "Python", *PACKAGES, "Passed", "Failed", "Skipped", "Date")
    text = row(*head) + "|" + "---|" * len(head) + "\n"
    rest = ""
    for name, result in results.items():
        if "not_run" in result:
            rest += f"* `{name}` was not run on {result['date']}: {result['not_run']}.\n"
            continue
        cells = [result[key] for key in ("python", *PACKAGES, "passed", "failed")]
        text += row(name, *cells, sum(result["skipped"].values()), result["date"])
    return f"{text}\n{rest}\n" if rest else f"{text}\n"


def skipped(results: dict[str, dict[str, Any]]) -> str:
    """Return the table of the reasons for which tests were skipped."""
    reasons: dict[str, dict[str, int]] = {}
    for name, result in results.items():
        for reason, count in result.get("skipped", {}).items():
            reasons.setdefault(reason, {})[name] = count
    if not reasons:
        return "No test was skipped.\n"
    text = row("Reason", "Tests in each environment") + "|---|---|\n"
    for reason, counts in reasons.items():
        text += row(reason, ", ".join(f"{name}: {count}" for name, count in counts.items()))
    return text


def page(results: dict[str, dict[str, Any]]) -> str:
    """Return the page."""
    files = "".join(f"* `{path}`\n" for path in SELECTION)
    return f"{HEAD}{table(results)}{SKIPPED}{skipped(results)}\n{TESTS}{files}"


def save(name: str, result: dict[str, Any]) -> None:
    """Replace the result of an environment, and write the page."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    results[name] = result
    results = {name: results[name] for name in environments() if name in results}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8", newline="\n")
    PAGE.write_text(page(results), encoding="utf-8", newline="\n")


def main() -> int:
    """Run the environments; the exit code is 1 if a test failed or could not run."""
    known = environments()
    arguments = sys.argv[1:]
    names = [name for name in arguments if name != "--print"] or list(known)
    if unknown := set(names) - set(known):
        sys.stdout.write(f"no environment {sorted(unknown)}: write one of {', '.join(known)}\n")
        return 2
    code = 0
    for name in names:
        try:
            result = run(known[name]) | {"date": datetime.now(UTC).date().isoformat()}
        except (NotRun, subprocess.TimeoutExpired) as error:
            sys.stdout.write(f"{name}: not run: {error}\n")
            code = 1
            continue
        sys.stdout.write(f"{name}: {json.dumps(result)}\n")
        sys.stdout.flush()
        if result.get("failed"):
            code = 1
        if "--print" not in arguments:
            save(name, result)
    return code


if __name__ == "__main__":
    sys.exit(main())
