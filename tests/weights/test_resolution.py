"""Weights files: where they are found, and everything that can be wrong with one."""

from __future__ import annotations

import hashlib
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from andon.core import AndonError
from andon.features.extractor import create_extractor
from andon.features.resnet import ARCHITECTURES, ResNet
from andon.weights import resolution as module
from andon.weights.initialisation import orthogonal_initialisation
from andon.weights.published import PUBLISHED, PublishedFile, PublishedWeights, cache_directory
from andon.weights.state_dicts import read_state_dict


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    network = ResNet(ARCHITECTURES["resnet18"], num_classes=3)
    orthogonal_initialisation(network, 11)
    return network.state_dict()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ANDON_CACHE", "TORCH_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    folder = tmp_path / "ANDON_CACHE" / "weights"
    folder.mkdir(parents=True)
    return folder


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def published(monkeypatch: pytest.MonkeyPatch, digest: str, filename: str = "tiny.safetensors") -> None:
    """Makes "imagenet" of resnet18 stand for one file with this hash, at an address that no network serves."""
    file = PublishedFile(filename, digest, f"http://127.0.0.1:9/{filename}")
    known = dict(PUBLISHED) | {("resnet18", "tv_in1k"): PublishedWeights("tv_in1k", "BSD-3-Clause", (file,))}
    monkeypatch.setattr("andon.weights.published.PUBLISHED", known)


def features(weights: str | Path) -> torch.Tensor:
    x = torch.linspace(-2, 2, 3 * 64 * 64).reshape(1, 3, 64, 64)
    return create_extractor("resnet18", ("layer2",), weights)(x)[0]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
@pytest.mark.parametrize("counters", [True, False])
def test_every_usual_form_of_a_state_dict_gives_the_same_features(
    state: dict[str, torch.Tensor], tmp_path: Path, suffix: str, prefix: str, counters: bool
) -> None:
    path = tmp_path / f"weights{suffix}"
    written = {prefix + k: v for k, v in state.items() if counters or not k.endswith("num_batches_tracked")}
    if suffix == ".safetensors":
        save_file(written, path)
    else:
        torch.save({"state_dict": written, "epoch": torch.tensor(3)} if prefix else written, path)
    reference = ResNet(ARCHITECTURES["resnet18"], num_classes=3).eval()
    reference.load_state_dict(state)
    x = torch.linspace(-2, 2, 3 * 64 * 64).reshape(1, 3, 64, 64)
    with torch.no_grad():
        (expected,) = reference.stages(x, [2])
    torch.testing.assert_close(features(path), expected, rtol=1e-4, atol=1e-4)


def test_record_of_a_file(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(state, path)
    record = create_extractor("resnet18", (1,), path).weights
    assert (record.part, record.source, record.name, record.pretrained) == ("resnet18", "file", path.name, True)
    assert record.sha256 == sha256(path)


def test_the_classifier_may_be_absent_but_no_other_tensor(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({k: v for k, v in state.items() if not k.startswith("fc.")}, path)
    assert torch.isfinite(features(path)).all()
    save_file({k: v for k, v in state.items() if k != "layer2.0.downsample.0.weight"}, path)
    with pytest.raises(AndonError, match=rf"{path}.*layer2\.0\.downsample\.0\.weight missing"):
        features(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("layer1.0.conv1.weight", torch.zeros(64, 64, 1, 1), r"layer1\.0\.conv1\.weight has shape \[64, 64, 1, 1\]"),
        ("bn1.running_var", torch.full((64,), torch.nan), r"bn1\.running_var.*not finite"),
        ("conv1.weight", torch.zeros(64, 3, 7, 7, dtype=torch.int32), r"conv1\.weight"),
        ("se.weight", torch.zeros(1), r"unexpected tensor se\.weight"),
    ],
)
def test_a_wrong_tensor_is_named(
    state: dict[str, torch.Tensor], tmp_path: Path, name: str, value: torch.Tensor, message: str
) -> None:
    path = tmp_path / "w.safetensors"
    save_file({**state, name: value}, path)
    with pytest.raises(AndonError, match=message) as raised:
        features(path)
    assert str(path) in str(raised.value)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "ran"

    class Runs:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return (open, (str(witness), "w"))

    for number, protocol in enumerate((2, 4)):
        path = tmp_path / f"{number}.pth"
        torch.save({"conv1.weight": Runs()}, path, pickle_protocol=protocol)
        with pytest.raises(AndonError, match="refused"):
            read_state_dict(path)
    plain = tmp_path / "plain.pth"
    plain.write_bytes(pickle.dumps({"a": Runs()}))
    with pytest.raises(AndonError, match=str(plain)):
        read_state_dict(plain)
    assert not witness.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
@pytest.mark.parametrize("kept", [0, 3, 40, 5000, -1])
def test_a_truncated_file_is_named(state: dict[str, torch.Tensor], tmp_path: Path, suffix: str, kept: int) -> None:
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    some = {k: v for k, v in state.items() if k.startswith(("conv1", "bn1"))}
    save_file(some, whole) if suffix == ".safetensors" else torch.save(some, whole)
    path.write_bytes(whole.read_bytes()[:kept])
    with pytest.raises(AndonError, match=str(path)):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "not a state dict"),
        ({}, "not a state dict"),
        ({"a": 3.0}, "not tensors: a"),
        ({1: 2}, "not tensors: 1"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "x.pth"
    torch.save(content, path)
    with pytest.raises(AndonError, match=message):
        read_state_dict(path)


def test_absent_file_unknown_type_and_folder(tmp_path: Path) -> None:
    with pytest.raises(AndonError, match="no such file"):
        read_state_dict(tmp_path / "absent.pth")
    (tmp_path / "w.h5").write_bytes(b"x")
    with pytest.raises(AndonError, match=r"unknown file type '\.h5'"):
        read_state_dict(tmp_path / "w.h5")
    with pytest.raises(AndonError, match="there is no file"):
        create_extractor("resnet18", (1,), tmp_path)


def test_hash_that_the_user_gives_is_checked(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(state, path)
    right = sha256(path)
    assert torch.equal(features(f"{path}#sha256={right.upper()}"), features(path))
    with pytest.raises(AndonError, match=f"{path}: SHA-256 is {right}, expected {'0' * 64}"):
        features(f"{path}#sha256={'0' * 64}")
    with pytest.raises(AndonError, match="64 hexadecimal digits"):
        features(f"{path}#sha256=12")


def test_places_in_their_order(
    state: dict[str, torch.Tensor], cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = tmp_path / "tiny.safetensors"
    save_file(state, whole)
    published(monkeypatch, sha256(whole))
    package = tmp_path / "package"
    (package / "embedded").mkdir(parents=True)
    monkeypatch.setattr(module.resources, "files", lambda _: package)
    torch_cache = tmp_path / "TORCH_HOME" / "hub" / "checkpoints"
    torch_cache.mkdir(parents=True)

    with pytest.raises(AndonError, match=r"not on this machine and cannot be fetched.*http://127\.0\.0\.1:9/tiny"):
        features("imagenet")
    for folder, source in ((package / "embedded", "embedded"), (torch_cache, "cache"), (cache, "cache")):
        (folder / "tiny.safetensors").write_bytes(whole.read_bytes())
        record = create_extractor("resnet18", (2,), None).weights
        assert (record.source, record.name, record.licence) == (source, "tv_in1k", "BSD-3-Clause")
    # Andon's cache comes first: a damaged file there is an error, not a reason to look on silently.
    (cache / "tiny.safetensors").write_bytes(whole.read_bytes()[:-1])
    with pytest.raises(AndonError, match=rf"{cache / 'tiny.safetensors'}: SHA-256 is .*damaged"):
        features("imagenet")


def test_nothing_is_left_behind_by_a_download_that_failed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(monkeypatch, "1" * 64)
    with pytest.raises(AndonError, match="cannot be fetched"):
        features("imagenet")
    assert list(cache.iterdir()) == []


def test_a_download_with_another_hash_is_refused(
    state: dict[str, torch.Tensor], cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = tmp_path / "other.safetensors"
    save_file(state, source)
    file = PublishedFile("tiny.safetensors", "2" * 64, source.as_uri())
    known = {("resnet18", "tv_in1k"): PublishedWeights("tv_in1k", "", (file,))}
    monkeypatch.setattr("andon.weights.published.PUBLISHED", known)
    with pytest.raises(AndonError, match="cannot be fetched"):
        features("imagenet")
    assert list(cache.iterdir()) == []
    good = PublishedFile("tiny.safetensors", sha256(source), source.as_uri())
    monkeypatch.setattr(
        "andon.weights.published.PUBLISHED", {("resnet18", "tv_in1k"): PublishedWeights("tv_in1k", "", (good,))}
    )
    assert create_extractor("resnet18", (2,)).weights.source == "hub"
    assert create_extractor("resnet18", (2,)).weights.source == "cache"


def test_unknown_name_tells_the_known_ones(cache: Path) -> None:
    with pytest.raises(AndonError, match=r"no file imagnet; published weights have the names imagenet, tv_in1k"):
        features("imagnet")


def test_hash_of_no_published_file(cache: Path) -> None:
    with pytest.raises(AndonError, match="no published file has this SHA-256"):
        features(f"imagenet#sha256={'a' * 64}")


def test_pins_are_whole_and_agree_with_the_publishers_file_names() -> None:
    for weights in PUBLISHED.values():
        assert weights.licence or weights.files[0].member, "only the releases of archives state none"
        for file in weights.files:
            assert len(bytes.fromhex(file.sha256)) == 32
            stem, _, mark = file.filename.removesuffix(".pth").rpartition("-")
            if file.filename.endswith(".pth"):  # PyTorch's file names carry the first digits of the hash
                assert stem
                assert file.sha256.startswith(mark)
            if file.hub is not None:
                assert len(file.hub[1]) == 40


@pytest.mark.parametrize("text", ["random:x", "random:-1", "random:1.5"])
def test_bad_seed(text: str) -> None:
    with pytest.raises(AndonError, match="seed must be a whole number"):
        create_extractor("resnet18", (1,), text)


def test_cache_directory_follows_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDON_CACHE", "/somewhere")
    assert cache_directory() == Path("/somewhere")
    monkeypatch.delenv("ANDON_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_directory() == Path("/xdg/andon")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_directory() == Path.home() / "Library" / "Caches" / "andon"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    assert cache_directory() == Path("/local/andon/cache")
