"""``andon methods``."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Andon


def test_list_names_every_method_whole(andon: Andon) -> None:
    lines = andon("methods", "list").stdout.splitlines()
    assert lines[0].split() == ["name", "method", "paper"]
    assert {"padim", "patchcore", "thumbnail-nn"} <= {line.split()[0] for line in lines}


@pytest.mark.parametrize("name", ["padim", "patchcore", "thumbnail-nn"])
def test_show_prints_what_a_plan_takes(andon: Andon, name: str) -> None:
    lines = andon("methods", "show", name).stdout.splitlines()
    plan = yaml.safe_load("\n".join(line for line in lines[1:] if not line.startswith("preset ")))
    assert plan["method"] == name
    assert "transform" in plan["config"]


def test_check_prints_a_checklist(andon: Andon, tmp_path: Path) -> None:
    source = (Path(__file__).parents[1] / "benchmark" / "fake_method.py").read_text(encoding="utf-8")
    good = tmp_path / "good.py"
    good.write_text(source, encoding="utf-8")
    lines = andon("methods", "check", f"{good}:FakeMethod", "--set", "noise=0.02").stdout.splitlines()
    assert lines[0].split()[0] == "Fake"
    assert "kept: the scores of an image never depend on the other images in its batch" in lines
    assert lines[-2].startswith("not checked: higher = more anomalous (")
    assert lines[-1] == "the contract is kept, as far as this can show"


def test_check_exits_with_2_where_the_contract_is_broken(andon: Andon, tmp_path: Path) -> None:
    source = (Path(__file__).parents[1] / "benchmark" / "fake_method.py").read_text(encoding="utf-8")
    bad = tmp_path / "bad.py"
    bad.write_text(source.replace("generator=torch.Generator().manual_seed(seed)", ""), encoding="utf-8")
    text = andon("methods", "check", f"{bad}:FakeMethod", code=2).stdout
    assert "broken: no use of global random state (python, numpy, torch) (the global state of torch" in text
    assert text.splitlines()[-1] == "2 of 18 broken"
    assert "unknown option 'nois'" in andon("methods", "check", f"{bad}:FakeMethod", "--set", "nois=1", code=2).stderr
