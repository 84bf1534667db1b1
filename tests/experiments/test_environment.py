"""The environment of a comparison is read without running what a checkout configures."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ratecraft.experiments._environment import environment

GIT = shutil.which("git")
pytestmark = [
    pytest.mark.skipif(GIT is None, reason="needs git"),
    pytest.mark.skipif(os.name != "posix", reason="plants shell scripts"),
]


def git(*arguments: str) -> str:
    names = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    return subprocess.run(
        [str(GIT), *names, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("GIT_DIR", raising=False)
    git("init", "-q")
    (folder / "a.txt").write_text("a")
    git("add", ".")
    git("commit", "-qm", "first")
    return folder


def test_commit_is_marked_if_a_file_differs(checkout: Path) -> None:
    commit = git("rev-parse", "HEAD")[:12]
    (checkout / "new.txt").write_text("not in git")
    assert environment()["git commit"] == commit
    (checkout / "a.txt").write_text("changed")
    assert environment()["git commit"] == f"{commit}-dirty"
    (checkout / "inner").mkdir()
    os.chdir(checkout / "inner")
    assert environment()["git commit"] == f"{commit}-dirty"


def test_folder_without_a_commit_has_none(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert "git commit" not in environment()
    git("init", "-q")
    assert "git commit" not in environment()
    monkeypatch.setenv("PATH", "")
    assert "git commit" not in environment()


@pytest.mark.parametrize(
    "name", ["evil", "e.v.i.l", "evil=", "required", os.fsdecode(b"a\xffb"), "a\u2028b", "a\x0cb"]
)
def test_programs_of_the_checkout_are_not_run(checkout: Path, tmp_path: Path, name: str) -> None:
    script, ran = tmp_path / "script.sh", tmp_path / "ran"
    script.write_text(f"#!/bin/sh\necho $0 $@ >> '{ran}'\ncat\n")
    script.chmod(0o755)
    hooks = checkout / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    shutil.copy(script, hooks / "post-index-change")
    (checkout / ".gitattributes").write_bytes(os.fsencode(f"*.txt filter={name} diff={name}\n"))
    for key in ("clean", "smudge", "process"):
        git("config", f"filter.{name}.{key}", str(script))
    git("config", f"filter.{name}.required", "true")
    git("config", f"diff.{name}.textconv", str(script))
    git("config", f"diff.{name}.command", str(script))
    git("config", "diff.external", str(script))
    git("config", "core.pager", str(script))
    git("config", "core.fsmonitor", str(script))
    # The content decides, as the time of change differs.
    os.utime(checkout / "a.txt", (0, 0))
    facts = environment()
    (checkout / "a.txt").write_text("b")
    environment()
    assert not ran.exists()
    assert facts.get("git commit") or "=" in name
    subprocess.run([str(GIT), "status"], capture_output=True, check=False)
    assert ran.exists()  # the script does run without this


def test_git_of_the_checkout_is_not_run(checkout: Path, tmp_path: Path, monkeypatch) -> None:
    program, ran = checkout / "git", tmp_path / "ran"
    program.write_text(f"#!/bin/sh\ntouch '{ran}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f".{os.pathsep}{os.environ['PATH']}")
    assert "git commit" not in environment()
    assert not ran.exists()
    subprocess.run(["git"], check=True)  # noqa: S607 - as a shell does
    assert ran.exists()
