"""Wheel and sdist, installed into environments of their own, work without this source."""

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
CORE = """
import sys
from pathlib import Path

import ratecraft
from ratecraft import cosine, warmup

assert "site-packages" in ratecraft.__file__, ratecraft.__file__
curve = (3e-4 * warmup(500).then(cosine(1, 0.1))).resolve(total_steps=10_000)
assert curve(500) == 3e-4 and len(curve.values()) == 10_000
from ratecraft.forecasting import bound, forecast, read_logs
from ratecraft.results import load
from ratecraft.report import terminal_curve

assert bound(cosine(1, 0).resolve(total_steps=400)).best > 0
assert terminal_curve({"x": curve})
assert "torch" not in sys.modules
"""


def run(*command: str | Path, cwd: Path, code: int = 0) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd, env=environment | {"NO_COLOR": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel, the sdist and the wheel built from the sdist."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "site", "tests", "dist"))
    shutil.copy(ROOT / ".gitignore", source)
    run(sys.executable, "-m", "hatchling", "build", "-d", folder / "dist", cwd=source)
    shutil.rmtree(source)
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        file.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "again",
        cwd=unpacked)  # fmt: skip
    shutil.rmtree(folder / "unpacked")
    return folder


def test_wheel_and_sdist_hold_the_package_and_nothing_else(built: Path) -> None:
    (wheel,), (again,) = (built / "dist").glob("*.whl"), (built / "again").glob("*.whl")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        names = first.namelist()
        assert sorted(names) == sorted(second.namelist())
        assert {n: first.read(n) for n in names} == {n: second.read(n) for n in names}
    inside = [name for name in names if ".dist-info/" not in name]
    source = ROOT / "src"
    files = [p for p in (source / "ratecraft").rglob("*") if p.suffix in (".py", ".css", ".js")]
    files.append(source / "ratecraft" / "py.typed")
    assert sorted(inside) == sorted(p.relative_to(source).as_posix() for p in files)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_sdist_holds_what_a_build_needs_and_nothing_else(built: Path) -> None:
    (sdist,) = (built / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {name for name in names if not name.startswith("src/ratecraft/")} == {
        *(".gitignore", "CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md"),
        *("hatch_build.py", "pyproject.toml"),
    }


def test_the_readme_of_an_index_has_no_picture_or_link_of_the_repository(built: Path) -> None:
    (wheel,) = (built / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        (name,) = (n for n in file.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(file.read(name))
    description, readme = metadata.get_payload(), (ROOT / "README.md").read_text()
    assert metadata["Description-Content-Type"] == "text/markdown"
    targets = re.findall(r"\]\(([^)]*)\)", description)
    assert targets
    assert all(target.startswith("https://") for target in targets)
    assert targets == [t for t in re.findall(r"\]\(([^)]*)\)", readme) if t.startswith("http")]
    code = re.compile(r"```.*?```", re.DOTALL)
    assert code.findall(description) == code.findall(readme)


def test_the_core_alone_needs_no_torch(built: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "env", cwd=tmp_path)
    bin = tmp_path / "env" / "bin"
    (wheel,) = (built / "dist").glob("*.whl")
    run(bin / "pip", "install", "--constraint", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    assert "torch" not in run(bin / "pip", "freeze", cwd=tmp_path)
    (tmp_path / "core.py").write_text(CORE)
    run(bin / "python", "-W", "error", "core.py", cwd=tmp_path)
    assert "100 steps" in run(bin / "ratecraft", "show", "cosine(1, 0)", "-n", "100", cwd=tmp_path)
    assert "nothing to report" in run(
        bin / "ratecraft", "check", "cosine(1, 0.1)", "-n", "100", cwd=tmp_path
    )
    rows = [f"{k},{3e-4},{2 + 3 * (k + 1) ** -0.5:.6f}" for k in range(0, 2000, 5)]
    (tmp_path / "log.csv").write_text("\n".join(["step,lr,loss", *rows]) + "\n")
    output = run(bin / "ratecraft", "forecast", "log.csv", "cosine(1, 0)", cwd=tmp_path)
    assert "would end at" in output
    info = run(bin / "ratecraft", "info", cwd=tmp_path)
    assert "devices: unknown, torch is not installed" in info
    assert "missing: pip install torch" in info
    refused = run(bin / "ratecraft", "find", "digits", cwd=tmp_path, code=2)
    assert "this needs torch 2.6 or newer, and none is installed" in refused
    refused = run(
        bin / "ratecraft", "show", "cosine(1, 0)", "-n", "9", "-o", "x.png", cwd=tmp_path, code=2
    )
    assert "pip install matplotlib" in refused


def test_the_wheel_trains_with_a_torch_that_is_there(built: Path, tmp_path: Path) -> None:
    (wheel,) = (built / "dist").glob("*.whl")
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--target", tmp_path / "lib", wheel,
        cwd=tmp_path)  # fmt: skip
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'lib')!r})\n"
        "import ratecraft\n"
        f"assert ratecraft.__file__.startswith({str(tmp_path / 'lib')!r})\n"
        "from ratecraft import cosine\n"
        "from ratecraft.experiments import compare\n"
        "r = compare('digits', [cosine(1, 0)], lrs=0.01, seeds=1, total_steps=45, workers=0)\n"
        "assert r.runs[0].final('accuracy') > 0.5\n"
    )
    run(sys.executable, "-c", code, cwd=tmp_path)
