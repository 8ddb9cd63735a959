"""``andon weights`` with empty caches."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest

from andon.weights.published import PUBLISHED
from tests.cli.conftest import Andon


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANDON_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    # The hub's library reads where its cache is once a process.
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **options: None)


def test_list_names_every_part(andon: Andon) -> None:
    rows = json.loads(andon("weights", "list", "--format", "json").stdout)
    assert {(row["part"], row["name"]) for row in rows} == {("andon-features", "embedded"), *PUBLISHED}
    for row in rows:
        assert len(row["sha256"]) == 64
        if row["part"] in ("efficientnet_lite1", "efficientnet_lite2"):
            assert row["source"] in (None, "package"), "of andon[features]"
        elif row["part"] == "efficientnet_lite0":
            assert row["source"] == "package", "a dependency of the package"
        else:
            assert row["source"] == ("embedded" if row["name"] == "embedded" else None), "the caches are empty"
    table = andon("weights", "list", "wide_resnet50_2").stdout
    assert "racm_in1k" in table
    assert "resnet18" not in table


def test_verify_and_where(andon: Andon, tmp_path: Path) -> None:
    whole = andon("weights", "verify").stdout
    assert "whole andon-features embedded" in whole
    missing = andon("weights", "verify", "resnet34", code=2)
    assert "wrong resnet34 tv_in1k" in missing.stderr
    assert "are not on this machine; get them from https://download.pytorch.org" in missing.stderr

    cache = Path(andon("weights", "where").stdout.strip())
    assert cache == tmp_path / "ANDON_CACHE" / "weights"
    cache.mkdir(parents=True)
    (cache / "resnet34-b627a593.pth").write_bytes(b"half a file")
    where = andon("weights", "where", "resnet34").stdout
    assert f"tv_in1k  cache  there  {cache / 'resnet34-b627a593.pth'}" in where
    assert "resnet34-b627a593.pth: SHA-256 is" in andon("weights", "verify", code=2).stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("list", "vgg"), "unknown part 'vgg'"),
        (("list", "--format", "xml"), "Invalid value for '--format'"),
        (("fetch", "resnet18", "x"), "part resnet18 has no weights 'x'"),
    ],
)
def test_mistakes_are_one_line(andon: Andon, args: tuple[str, ...], message: str) -> None:
    shown = andon("weights", *args, code=2).stderr
    assert message in shown
    assert shown.count("\n") == 1
