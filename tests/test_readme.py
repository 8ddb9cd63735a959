"""What the README shows runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from andon.benchmark.plan import PlanContent
from andon.synthetic import Counts, generate

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return [part.split("```", 1)[0] for part in README.split(f"```{language}\n")[1:]]


def test_the_notebook_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(tmp_path / "demo" / "data", tasks=("pipe_staple",), counts=Counts(train=6, good=3, defective=3), jobs=1)
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    values: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), values)
    shown = capsys.readouterr().out
    assert "image AUROC" in shown
    assert "(4, 384, 384)" in shown


def test_the_plan_is_a_plan() -> None:
    (example,) = blocks("yaml")
    plan = PlanContent.model_validate(yaml.safe_load(example))
    assert len(plan.seeds) == 8
    assert [m.label for m in plan.methods][3] == "Patchcore 10 shots"


def test_what_the_images_and_links_name_exists() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (Path(__file__).parents[1] / target).exists(), target
