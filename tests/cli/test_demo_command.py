"""demo."""

from pathlib import Path

import pytest
from command_line import ratecraft

from ratecraft.results import load


@pytest.mark.slow
def test_demo_finds_an_lr_and_compares_five_schedules(tmp_path: Path) -> None:
    done = ratecraft(tmp_path, "demo", "--seeds", "2")
    assert done.returncode == 0, done.stderr
    comparison = load(tmp_path / "ratecraft-demo" / "comparison.json")
    lr_search = load(tmp_path / "ratecraft-demo" / "lr-finder.json")
    assert len(comparison.schedules) == 5
    assert len(comparison.runs) == 10
    assert {run.lr for run in comparison.runs} == {lr_search.lr}
    page = (tmp_path / "ratecraft-demo" / "report.html").read_text()
    for row in comparison.summaries():
        assert row.name in done.stdout
        assert f"{row.mean['accuracy']:.4f} ± {row.spread['accuracy']:.4f}" in done.stdout
        assert row.name in page
        assert row.mean["accuracy"] > 0.9
    assert comparison.verdict() in done.stdout.replace("\n", " ")
