"""The command line: the whole way on tiny images, and one clear line with exit code 2 for every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from andon.cli.main import main

FLAT = "transform.size=[64, 64]"


def andon(*args: str | Path, code: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own, as a user does."""
    done = subprocess.run(
        [sys.executable, "-m", "andon", *map(str, args)], capture_output=True, text=True, cwd=cwd, timeout=240
    )
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve good images and four with a bright square, with masks, in MVTec AD's layout."""
    root = tmp_path_factory.mktemp("images") / "tiles"
    rng = np.random.default_rng(0)

    def save(rel: str, array: np.ndarray) -> None:
        path = root / rel
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)

    def good() -> np.ndarray:
        return rng.normal(100, 6, (96, 80, 3)).clip(0, 255).astype(np.uint8)

    for i in range(8):
        save(f"train/good/{i:03d}.png", good())
    for i in range(4):
        save(f"test/good/{i:03d}.png", good())
        bad, mask = good(), np.zeros((96, 80), np.uint8)
        mask[20:44, 10 + 8 * i : 34 + 8 * i] = 255
        bad[mask > 0] = 240
        save(f"test/spot/{i:03d}.png", bad)
        save(f"ground_truth/spot/{i:03d}_mask.png", mask)
    return root


def test_help_reads_like_a_table_of_contents() -> None:
    text = andon("--help").stdout
    for command in ("demo", "evaluate", "data", "bench", "methods"):
        assert command in text


def test_data_info_counts_and_finds_nothing_wrong(images: Path) -> None:
    text = andon("data", "info", images).stdout
    assert "80 × 96" in text
    assert "no inconsistency found" in text


def test_data_info_ends_with_1_when_an_image_cannot_be_read(tmp_path: Path, images: Path) -> None:
    (tmp_path / "train" / "good").mkdir(parents=True)
    Image.open(images / "train" / "good" / "000.png").save(tmp_path / "train" / "good" / "000.png")
    (tmp_path / "test" / "good").mkdir(parents=True)
    (tmp_path / "test" / "good" / "001.png").write_bytes(b"not an image")
    assert "001.png" in andon("data", "info", tmp_path, code=1).stdout


def test_run_status_report_and_run_again(tmp_path: Path, images: Path) -> None:
    store = tmp_path / "store"
    run = ("bench", "run", "-d", images, "-m", "thumbnail-nn", "-m", "padim", "-s", store, "--seeds", "2")
    options = ("--set", "padim.weights=random", "--set", f"padim.{FLAT}")
    assert "3 experiments done" in andon(*run, *options).stdout
    again = andon(*run, *options).stdout
    assert "0 experiments done" in again
    assert "3 were there already" in again
    assert "3 done, 0 failed, 0 missing" in andon("bench", "status", "-s", store).stdout
    page, tables = tmp_path / "page.html", tmp_path / "tables"
    text = andon("bench", "report", "-s", store, "-o", page, "--tables", tables).stdout
    assert "AUROC" in text
    assert "Random weights" in text
    assert page.read_text(encoding="utf-8").lower().startswith("<!doctype html>")
    assert {"tables.md", "tables.tex", "results.csv"} <= {p.name for p in tables.iterdir()}
    assert "0 experiments done" in andon("bench", "resume", "-s", store).stdout


def test_a_method_from_a_file_stands_in_the_same_tables(tmp_path: Path, images: Path) -> None:
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    source = text.split("```python\n", 1)[1].split("```", 1)[0]
    (tmp_path / "median_image.py").write_text(source, encoding="utf-8")
    andon("bench", "run", "-d", images, "-m", "median_image.py:MedianImage", "-s", "store", cwd=tmp_path)
    assert "Median image" in andon("bench", "report", "-s", "store", cwd=tmp_path).stdout


def test_dry_run_lists_and_does_nothing(tmp_path: Path, images: Path) -> None:
    text = andon("bench", "run", "-d", images, "-s", tmp_path / "store", "--dry-run", "--seeds", "2").stdout
    assert "5 experiments" in text  # the floor once, PaDiM and Patchcore twice
    assert not (tmp_path / "store").exists()


def test_evaluate_judges_maps_from_files(tmp_path: Path, images: Path) -> None:
    for mask in (images / "ground_truth" / "spot").iterdir():
        target = tmp_path / "maps" / "spot" / mask.name.replace("_mask", "")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(mask).save(target)
    for good in (images / "test" / "good").iterdir():
        target = tmp_path / "maps" / "good" / good.name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (80, 96)).save(target)
    out = tmp_path / "figures.json"
    andon("evaluate", "--maps", tmp_path / "maps", "--data", images, "-o", out)
    figures = json.loads(out.read_text())["tiles"]
    assert figures["image"]["auroc"] == 1
    assert figures["localisation"]["auspro"]["0.05"] == pytest.approx(1)


def test_synth_writes_a_data_set_that_info_finds_whole(tmp_path: Path) -> None:
    andon("data", "synth", tmp_path / "line", "-t", "pipe_clip", "--count", "2,1,2", "--jobs", "1")
    assert "no inconsistency found" in andon("data", "info", tmp_path / "line").stdout


@pytest.mark.parametrize("name", ["padim", "patchcore", "thumbnail-nn"])
def test_methods_show_prints_what_a_plan_takes(name: str) -> None:
    text = andon("methods", "show", name).stdout
    assert f"method: {name}" in text
    assert "transform:" in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("data", "info", "absent"), "absent"),
        (("bench", "run", "-s", "store"), "nothing to run"),
        (("bench", "run", "absent.yaml", "-s", "store"), "absent.yaml"),
        (("bench", "run", "-d", "absent", "-s", "store"), "absent"),
        (("bench", "run", "demo", "-m", "padim", "-s", "store"), "--method, --set, --preset and --embedded"),
        (("bench", "run", "-d", "{images}", "-m", "patchcor", "-s", "store"), "unknown method 'patchcor'"),
        (("bench", "run", "-d", "{images}", "-m", "padim", "--set", "padim.sigmma=1", "-s", "store"), "sigmma"),
        (("bench", "run", "-d", "{images}", "-c", "nuts", "-s", "store"), "nuts"),
        (("bench", "status", "-s", "absent"), "absent"),
        (("bench", "report", "-s", "absent"), "absent"),
        (("evaluate", "--maps", "absent", "--data", "{images}"), "absent"),
        (("evaluate", "--maps", "{images}", "--data", "{images}", "--limit", "2"), "limit"),
        (("data", "synth", "line", "--knob", "light"), "NAME=VALUE"),
        (("data", "synth", "line", "--knob", "heat=2"), "heat"),
        (("data", "synth", "line", "--task", "screwdriver"), "screwdriver"),
        (("data", "synth", "line", "--count", "many"), "--count"),
        (("methods", "show", "patchcor"), "patchcor"),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(
    tmp_path: Path,
    images: Path,
    args: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["andon", *(a.replace("{images}", str(images)) for a in args)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert len(shown.strip().splitlines()) == 1
    assert not any(tmp_path.iterdir())
