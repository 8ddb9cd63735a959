"""``andon study``: the whole way on a few tiny rendered images; the pages are others' business."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import andon.benchmark.study
from andon.benchmark import Store, StudyPlan, StudyProtocol, published
from andon.core import ProgressCallback
from andon.synthetic import Counts
from tests.benchmark.tiny import write_tiny
from tests.cli.conftest import Andon

FAKE = Path(__file__).parents[1] / "benchmark" / "fake_method.py"
METHOD = f"{FAKE}:FakeMethod"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two tasks of a few images; of the study's methods the trivial floor, and what a command adds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("andon.benchmark.study_line.TASKS", ("engine_wiring", "pipe_staple"))
    monkeypatch.setattr("andon.benchmark.study_line.RAW_TASKS", ("engine_wiring",))
    counts = Counts(train=4, good=2, defective=2)
    for images in ("COUNTS", "RAW_COUNTS"):
        monkeypatch.setattr(f"andon.benchmark.study_line.{images}", {True: counts, False: counts})
    monkeypatch.setattr(
        "andon.benchmark.study.SMALL",
        replace(andon.benchmark.study.SMALL, seeds=1, draws=1, versions=2, shots=(2, None), folds=2),
    )
    plans = andon.benchmark.study.study_plans

    def fewer(*args: Any, **options: Any) -> tuple[StudyPlan, ...]:
        return tuple(filter(None, map(_fewer, plans(*args, **options))))

    monkeypatch.setattr("andon.benchmark.study_run.study_plans", fewer)


def _fewer(part: StudyPlan) -> StudyPlan | None:
    content = part.plan.content
    methods = tuple(e for e in content.methods if e.method == "thumbnail-nn" or "FakeMethod" in e.method)
    # Two of Table 12's windows are of this task; every other part is put on it.
    datasets = tuple(
        entry.model_copy(update={"categories": ("engine_wiring",)})
        for entry in content.datasets
        if entry.window is None or "engine_wiring" in (entry.categories or ())
    )
    if not methods:
        return None
    content = content.model_copy(update={"methods": methods, "datasets": datasets})
    return replace(part, plan=replace(part.plan, content=content))


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], Path, StudyProtocol]]:
    """What ``write_study`` is asked for, in its place."""
    asked = []

    def write_study(
        store: Store,
        parts: Sequence[StudyPlan],
        folder: Path,
        *,
        protocol: StudyProtocol,
        progress: ProgressCallback = lambda stage, done, total: None,
    ) -> list[Path]:
        assert len(store) > 0
        assert all(store.plan(part.name) is not None for part in parts)
        assert all(Path(entry.path or "").is_dir() for part in parts for entry in part.plan.content.datasets)
        progress("writing", 1, 1)
        asked.append(([part.part for part in parts], folder, protocol))
        return [folder / "tables.tex", folder / "study.html"]

    monkeypatch.setattr("andon.report.write_study", write_study, raising=False)
    return asked


def test_from_nothing_to_the_pages_and_again(
    andon: Andon, tmp_path: Path, tiny: None, pages: list[tuple[list[str], Path, StudyProtocol]]
) -> None:
    command = ("study", "autovi", "--synthetic", "--small", "-j", "1", "--add-method", METHOD)
    text = andon(*command).stdout
    assert "synthetic-study-small-line-raw (24 rendered in" in text.replace("\n", " ")
    assert "no figure is one of the study's" in text
    # Thumbnails and the fake; the fake augmented; the fake on two windows; the fake on two images.
    assert "Tables 6 to 10, Figure 3 (plan synthetic-study-small): 2 experiments to do, 0 done before" in text
    assert "Table 11 (plan synthetic-table11-small): 1 experiments to do, 1 done before" in text
    assert "Table 12 (plan synthetic-table12-small): 3 experiments to do, 0 done before" in text
    assert "Figure 5 (plan synthetic-figure5-small): 1 experiments to do, 1 done before" in text
    assert "7 experiments done in" in text
    folder = tmp_path / "synthetic-study-small-report"
    assert f"results section: {folder / 'study.html'}" in text
    assert [(parts, out) for parts, out, _ in pages] == [(["study", "table11", "table12", "figure5"], folder)]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "synthetic-study-small" / "experiments").iterdir()}
    assert len(before) == 7

    again = andon(*command, "--out", "elsewhere").stdout
    assert "(there already)" in again
    assert "0 experiments done in" in again
    assert "7 were there already" in again
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "synthetic-study-small" / "experiments").iterdir()} == before
    assert pages[-1][1] == Path("elsewhere")


def test_the_protocol_is_that_of_the_pages(
    andon: Andon, tmp_path: Path, tiny: None, pages: list[tuple[list[str], Path, StudyProtocol]]
) -> None:
    write_tiny(tmp_path / "tiny", categories=("engine_wiring",), train=4)
    _as_autovi(tmp_path / "tiny")
    text = andon(
        "study", "autovi", "-d", "tiny", "--small", "--protocol", "released-code", "-j", "1", "--add-method", METHOD
    ).stdout
    assert "plan autovi-study-released-small" in text
    (asked,) = pages
    assert asked[2].tnr == "nearest"
    assert (tmp_path / "autovi-study-released-small" / "store.json").is_file()


def _as_autovi(folder: Path) -> None:
    """The layout that the study's plans are for: a folder of masks an image, and a configuration."""
    for category in folder.iterdir():
        (category / "defects_config.json").write_text(
            '[{"defect_name": "any", "pixel_value": 255, "saturation_threshold": 1, "relative_saturation": true}]'
        )
        for mask in list((category / "ground_truth").rglob("*_mask.png")):
            target = mask.with_name(mask.name.removesuffix("_mask.png"))
            target.mkdir()
            mask.rename(target / "0000.png")


def test_dry_run_shows_the_grid_and_does_nothing(
    andon: Andon, tmp_path: Path, tiny: None, pages: list[tuple[list[str], Path, StudyProtocol]]
) -> None:
    command = ("study", "autovi", "--synthetic", "--small", "-s", "runs", "-j", "1", "--add-method", METHOD)
    lines = andon(*command, "--dry-run").stdout.splitlines()
    assert "Tables 6 to 10, Figure 3" in lines
    (augmented,) = [line for line in lines if "Fake, augmented" in line]
    assert augmented.split()[-8:-5] == ["0", "0", "1"]  # done, failed, missing
    assert augmented.endswith("timed steps")
    assert "0 experiments done, 7 to do" in lines
    assert lines[-1].startswith("about ")
    assert not (tmp_path / "runs").exists()
    assert (tmp_path / "runs-line").is_dir()
    assert pages == []
    andon(*command)
    assert andon(*command, "--dry-run").stdout.splitlines()[-1] == "7 experiments done, 0 to do"


def test_a_failure_is_told_and_the_pages_are_written_all_the_same(
    andon: Andon, tmp_path: Path, tiny: None, pages: list[tuple[list[str], Path, StudyProtocol]]
) -> None:
    broken = FAKE.read_text(encoding="utf-8").replace('"hang", "nan"] = "none"', '"hang", "nan"] = "raise"')
    (tmp_path / "broken.py").write_text(broken, encoding="utf-8")
    command = ("study", "autovi", "--synthetic", "--small", "-s", "runs", "-j", "1", "--add-method")
    found = andon(*command, "broken.py:FakeMethod", code=1)
    assert "ArithmeticError: the fit went astray" in found.stderr
    assert "6 failed" in found.stdout
    assert "andon bench status -s runs" in found.stdout
    assert len(pages) == 1


def test_mistakes_are_told_before_anything_is_done(andon: Andon, tmp_path: Path, tiny: None) -> None:
    study = ("study", "autovi")
    assert "--data DIR" in andon(*study, code=2).stderr
    assert "give one of them" in andon(*study, "--synthetic", "-d", "x", code=2).stderr
    assert "give one of them" in andon(*study, "--synthetic", "--raw", "x", code=2).stderr
    assert "released-code" in andon(*study, "--synthetic", "--protocol", "released-code", code=2).stderr
    assert "--engine ray" in andon(*study, "--synthetic", "--address", "auto", code=2).stderr
    assert "no-such" in andon(*study, "--synthetic", "--add-method", "no-such", code=2).stderr
    assert "nowhere" in andon(*study, "-d", "nowhere", code=2).stderr
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").touch()
    assert "not a benchmark store" in andon(*study, "--synthetic", "--small", "-s", "runs", "-j", "1", code=2).stderr


def test_real_images_without_weights_are_refused(
    andon: Andon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: list[tuple[list[str], Path, StudyProtocol]]
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network")

    for name in ("ANDON_CACHE", "TORCH_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", no_network, raising=False)
    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path / "data", categories=tuple(published.CATEGORIES), train=4)
    _as_autovi(tmp_path / "data")
    # Windows of 200×200 do not fit in these; nothing comes to that.
    found = andon("study", "autovi", "-d", "data", code=2)
    assert "weights for wide_resnet50_2 are not on this machine" in found.stderr
    assert "nothing was run" in found.stderr
    assert not (tmp_path / "autovi-study").exists()
    assert pages == []


def test_published_figures_with_their_sources(andon: Andon) -> None:
    lines = andon("study", "literature").stdout.splitlines()
    assert lines[0].split() == ["method", "MVTec", "AD", "MVTec", "LOCO", "VisA"]
    assert [line.split() for line in lines if line.startswith("CFlow ")] == [["CFlow", "98.2", "–", "91.5*"]]
    assert any("Papers with Code" in line for line in lines)
    rows = list(csv.DictReader(io.StringIO(andon("study", "literature", "--format", "csv").stdout)))
    assert len(rows) == sum(map(len, published.LITERATURE.values()))
    (gcad,) = [row for row in rows if (row["method"], row["data set"]) == ("GCAD", "VisA")]
    assert (gcad["AUROC (%)"], gcad["asterisk"]) == ("89.1", "yes")
    assert gcad["source"].startswith("Papers with Code")
    latex = andon("study", "literature", "--format", "latex").stdout
    assert r"DRAEM & 98.0 & 73.6* & -- \\" in latex
    assert r"| DSR | 98.2 | 82.6\* | – |" in andon("study", "literature", "--format", "markdown").stdout
