"""Weights that are missing are named before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from andon.benchmark import make_plan, run_plan
from andon.core import WeightsError
from tests.benchmark.tiny import write_tiny


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set, on a machine that has no weights and no network."""
    for name in ("ANDON_CACHE", "TORCH_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", _no_network, raising=False)
    monkeypatch.setattr("torch.hub.download_url_to_file", _no_network)
    return write_tiny(tmp_path / "data", categories=("bolt",))


def _no_network(*_: object, **__: object) -> None:
    raise OSError("no network")


def test_every_missing_part_is_named_once_with_the_way_out(data: Path, tmp_path: Path) -> None:
    methods = ["thumbnail-nn", "padim", "patchcore", "efficientad", "dsr", "cflow"]
    with pytest.raises(WeightsError) as refused:
        run_plan(make_plan([data], methods, seeds=2, preset="study"), tmp_path / "store")
    message = str(refused.value)
    assert "\n" not in message
    for part in ("wide_resnet50_2", "efficientad_teacher_medium", "dsr_discrete_latent_model"):
        assert message.count(f"weights for {part} are not on this machine") == 1
    assert message.count("PaDiM study, Patchcore study") >= 1
    assert "preset: default" in message
    assert "random" not in message
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("padim", {"weights": "no-such-file.safetensors"}),
        ("patchcore", {"backbone": "timm:resnet18.a1_in1k"}),
        ("efficientad", {"teacher": "resnet18", "layers": ("layer2",)}),
        ("dsr", {"weights": "file.pth"}),
    ],
)
def test_every_place_where_weights_are_named_is_looked_at(
    data: Path, tmp_path: Path, method: str, options: dict[str, object]
) -> None:
    words = [f"{method}.{key}={list(v) if isinstance(v, tuple) else v}" for key, v in options.items()]
    with pytest.raises(WeightsError, match="nothing was run"):
        run_plan(make_plan([data], [method], options=words), tmp_path / "store")


def test_a_file_with_another_hash_is_named_before_the_run(data: Path, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"w\.safetensors: SHA-256 is"):
        run_plan(make_plan([data], ["padim"], options=[f"padim.weights={weights}#sha256={'0' * 64}"]), tmp_path / "s")


def test_what_comes_with_the_package_or_is_random_needs_nothing(data: Path, tmp_path: Path) -> None:
    from andon.methods import check_method_weights, create_method, method_names

    for name in method_names():
        if "default" in create_method(name).presets:
            check_method_weights(create_method(name))
    check_method_weights(create_method("padim", weights="random:3"))
