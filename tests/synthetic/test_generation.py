"""The data set on disk: AutoVI's layout, the study's counts, atomic."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from andon.core import AndonError
from andon.synthetic import MANIFEST, TASKS, Counts, defect_types, generate, generation, plan_images, render
from andon.synthetic.generation import counts_of

TINY = Counts(train=2, good=1, defective=5)
TABLE_3 = {
    "engine_wiring": (285, 285, 322),
    "pipe_clip": (195, 196, 141),
    "pipe_staple": (198, 199, 127),
    "tank_screw": (318, 318, 95),
    "underbody_pipes": (161, 161, 184),
    "underbody_screw": (373, 374, 18),
}


@pytest.fixture(scope="module")
def wiring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("line") / "set"
    generate(root, tasks=["engine_wiring"], counts=TINY, seed=3, jobs=1)
    return root


def test_layout_is_autovis(wiring: Path) -> None:
    category = wiring / "engine_wiring"
    assert sorted(p.name for p in category.iterdir()) == ["defects_config.json", "ground_truth", "test", "train"]
    assert sorted(p.name for p in (category / "train/good").iterdir()) == ["0000.png", "0001.png"]
    assert sorted(p.name for p in (category / "test").iterdir()) == sorted([*defect_types("engine_wiring"), "good"])
    config = {entry["defect_name"]: entry for entry in json.loads((category / "defects_config.json").read_text())}
    assert config["blue_hoop"]["relative_saturation"] is False
    assert len({entry["pixel_value"] for entry in config.values()}) == len(config)
    for defect in defect_types("engine_wiring"):
        for file in (category / "test" / defect).glob("*.png"):
            channels = sorted((category / "ground_truth" / defect / file.stem).iterdir())
            assert [c.name for c in channels] == [f"{k:04d}.png" for k in range(len(channels))]
            assert channels
            for channel in channels:
                with Image.open(channel) as mask:
                    assert mask.mode == "RGB"
                    assert mask.size == (400, 400)
                    values = set(np.unique(np.asarray(mask))) - {0}
                assert len(values) == 1
                assert values <= {entry["pixel_value"] for entry in config.values()}
    assert not (category / "ground_truth/good").exists()


def test_files_hold_what_render_gives(wiring: Path) -> None:
    for planned in plan_images("engine_wiring", TINY, 3):
        defect = None if planned.defect_type == "good" else planned.defect_type
        scene = render("engine_wiring", planned.index, planned.split, defect, seed=3, time=planned.time)
        with Image.open(wiring / planned.path) as stored:
            assert stored.mode == "RGB"
            assert np.array_equal(np.asarray(stored), scene.image)


def test_manifest_says_how_it_was_made(wiring: Path) -> None:
    manifest = json.loads((wiring / MANIFEST).read_text())
    assert manifest["seed"] == 3
    assert manifest["knobs"]["light"] == 1.0
    assert set(manifest["versions"]) == {"andon", "numpy", "opencv"}
    paths = [entry["path"] for entry in manifest["images"]]
    assert len(paths) == len(set(paths)) == 8
    assert all((wiring / path).is_file() for path in paths)
    times = [entry["time"] for entry in manifest["images"]]
    assert times == sorted(times)


def test_processes_do_not_change_the_images(wiring: Path, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    generate(
        tmp_path / "again",
        tasks=["engine_wiring"],
        counts=TINY,
        seed=3,
        jobs=2,
        progress=lambda stage, n, total: done.append((n, total)),
    )
    files = sorted(p.relative_to(wiring) for p in wiring.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file())
    for file in files:
        assert (wiring / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file
    assert done[0] == (0, 8)
    assert done[-1] == (8, 8)
    assert sorted(done) == done


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads Linux's table of processes")
def test_killed_it_leaves_no_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "andon", "data", "synth", str(tmp_path / "line"), "--count", "full", "--jobs", "2"]
    running = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    workers: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + 100
        while len(workers) < 2 or not any(tmp_path.rglob("*.png")):
            assert time.monotonic() < deadline
            assert running.poll() is None
            workers = [p for p in running.children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
            time.sleep(0.05)
        running.kill()
        assert not psutil.wait_procs(workers, timeout=20)[1]
    finally:
        for process in (running, *workers):
            if process.is_running():
                process.kill()
        running.wait()


@pytest.mark.parametrize("task", TASKS)
def test_full_counts_are_table_3(task: str) -> None:
    plan = plan_images(task, counts_of(task, "full"), 0)
    train = [p for p in plan if p.split == "train"]
    good = [p for p in plan if p.split == "test" and p.defect_type == "good"]
    defective = [p for p in plan if p.split == "test" and p.defect_type != "good"]
    assert (len(train), len(good), len(defective)) == TABLE_3[task]


@settings(max_examples=40, deadline=None)
@given(
    task=st.sampled_from(TASKS),
    train=st.integers(1, 40),
    good=st.integers(0, 40),
    defective=st.integers(0, 60),
    seed=st.integers(-5, 5),
)
def test_plan_is_a_production_in_order(task: str, train: int, good: int, defective: int, seed: int) -> None:
    plan = plan_images(task, Counts(train=train, good=good, defective=defective), seed)
    assert plan == plan_images(task, Counts(train=train, good=good, defective=defective), seed)
    assert len(plan) == train + good + defective
    assert [p.split for p in plan] == ["train"] * train + ["test"] * (good + defective)
    assert [p.time for p in plan] == sorted(p.time for p in plan)
    assert all(0 <= p.time <= 1 for p in plan)
    for split, total in (("train", train), ("test", good + defective)):
        assert sorted(p.index for p in plan if p.split == split) == list(range(total))
    for kind in {(p.split, p.defect_type) for p in plan}:
        numbers = [p.number for p in plan if (p.split, p.defect_type) == kind]
        assert numbers == list(range(len(numbers))), "file names are in shooting order"
    if defective >= len(defect_types(task)):
        assert {p.defect_type for p in plan} - {"good"} == set(defect_types(task))


def test_refuses_a_folder_that_is_not_empty(tmp_path: Path, wiring: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(AndonError, match="not empty"):
        generate(tmp_path, counts=TINY)
    with pytest.raises(AndonError, match="holds no synthetic line"):
        generate(tmp_path, counts=TINY, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "precious"
    with pytest.raises(AndonError, match="is a file"):
        generate(tmp_path / "thesis.txt", counts=TINY)
    with pytest.raises(AndonError, match="not empty"):
        generate(wiring, counts=TINY)


def test_overwrite_replaces_an_earlier_line(tmp_path: Path) -> None:
    one = Counts(train=1, good=0, defective=0)
    root = tmp_path / "set"
    root.mkdir()
    generate(root, tasks=["pipe_clip", "engine_wiring"], counts=one, jobs=1)
    generate(root, tasks=["engine_wiring"], counts=one, seed=1, jobs=1, overwrite=True)
    assert sorted(p.name for p in root.iterdir()) == ["engine_wiring", MANIFEST]
    assert json.loads((root / MANIFEST).read_text())["seed"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["set"], "nothing is left aside"


def test_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0

    def full(path: Path, file: np.ndarray) -> None:
        nonlocal written
        written += 1
        if written > 2:
            raise OSError(28, "No space left on device")
        path.write_bytes(b"png")

    monkeypatch.setattr(generation, "_write_png", full)
    with pytest.raises(AndonError, match=r"No space left on device.*nothing was kept"):
        generate(tmp_path / "set", tasks=["engine_wiring"], counts=TINY, jobs=1)
    assert list(tmp_path.iterdir()) == []


def test_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "set", tasks=["engine_wiring"], counts=TINY, jobs=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(AndonError, match="unknown task 'wiring'"):
        generate(tmp_path / "a", tasks=["wiring"])
    with pytest.raises(AndonError, match="no task named"):
        generate(tmp_path / "a", tasks=[])
    with pytest.raises(AndonError, match="jobs must be at least 1"):
        generate(tmp_path / "a", jobs=0)
    with pytest.raises(AndonError, match="counts must be"):
        generate(tmp_path / "a", counts="huge")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
