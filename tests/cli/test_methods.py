"""``andon methods``."""

from __future__ import annotations

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
