"""Known learned parts: files of the published shape, made here, and everything that can be wrong with one."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from andon._tools.seeds import step_generator
from andon.core import ConfigError, WeightsError
from andon.data.rendered import rendered_image
from andon.data.transform import Transform
from andon.methods.dsr.codebook import load_discrete_latent_model
from andon.methods.efficientad.pdn import load_teacher
from andon.methods.parts import fetch_part, known_parts, part_status, parts_named, verify_part
from andon.weights.published import PUBLISHED, PublishedFile, PublishedWeights
from andon.weights.resolution import find_part

FACTS = Path(__file__).parents[1] / "facts" / "checkpoints.json"
PART = "efficientad_teacher_small"
SMALL = {
    f"conv{number}.{leaf}": shape
    for number, (outputs, inputs, kernel) in enumerate([(128, 3, 4), (256, 128, 4), (256, 256, 3), (384, 256, 4)], 1)
    for leaf, shape in (("weight", [outputs, inputs, kernel, kernel]), ("bias", [outputs]))
}
State = dict[str, torch.Tensor]


def made(shapes: dict[str, list[int]]) -> State:
    return {name: 0.05 * torch.randn(shape, generator=step_generator(0, name)) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def teacher() -> State:
    return made(SMALL)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ANDON_CACHE", "TORCH_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    folder = tmp_path / "ANDON_CACHE" / "weights"
    folder.mkdir(parents=True)
    return folder


def archive(path: Path, state: object, name: str = "some_folder/pretrained_teacher_small.pth") -> Path:
    inner = path.with_suffix(".inner")
    torch.save(state, inner)
    with zipfile.ZipFile(path, "w") as file:
        file.write(inner, name)
        file.writestr("some_folder/readme.txt", "hello")
    inner.unlink()
    return path


def pin(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Makes the published teacher stand for an archive with this content, at an address that no network serves."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    file = PublishedFile("t.zip", digest, "http://127.0.0.1:9/t.zip", member="pretrained_teacher_small.pth")
    known = {(PART, "imagenet"): PublishedWeights("imagenet", "", (file,))}
    monkeypatch.setattr("andon.weights.published.PUBLISHED", known)


def as_safetensors(path: Path, state: State) -> Path:
    save_file(state, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def as_pickle(path: Path, state: State) -> Path:
    torch.save(state, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def as_sequence(path: Path, state: State) -> Path:
    places = {"conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8}
    return as_pickle(path, {f"{places[n[:5]]}.{n[6:]}": t for n, t in state.items()})


def as_archive(path: Path, state: State) -> Path:
    return archive(path.with_suffix(".zip"), state)


@pytest.mark.parametrize("write", [as_safetensors, as_pickle, as_sequence, as_archive])
def test_teachers_of_every_usual_form(write: Callable[[Path, State], Path], teacher: State, tmp_path: Path) -> None:
    path = write(tmp_path / "teacher", teacher)
    network, record = load_teacher("small", path)
    assert all(torch.equal(tensor, teacher[name]) for name, tensor in network.state_dict().items())
    assert (record.part, record.source, record.name, record.pretrained) == (PART, "file", path.name, True)
    assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(
    "part", ["efficientad_teacher_small", "efficientad_teacher_medium", "dsr_discrete_latent_model"]
)
def test_files_of_the_published_names_and_shapes_load(part: str, tmp_path: Path) -> None:
    if not FACTS.is_file():
        pytest.skip("facts about published checkpoints are not at hand")
    state = made(json.loads(FACTS.read_text())[part])
    path = tmp_path / "published.pckl"
    torch.save(state, path)
    if part.startswith("dsr"):
        loaded = load_discrete_latent_model(path)[0].state_dict()
    else:
        loaded = load_teacher("medium" if part.endswith("medium") else "small", path)[0].state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("conv3.bias"), r"tensor conv3\.bias missing"),
        (
            lambda s: s.update({"conv2.weight": torch.zeros(256, 128, 3, 3)}),
            r"conv2\.weight has shape \[256, 128, 3, 3\]",
        ),
        (lambda s: s.update({"conv9.weight": torch.zeros(1)}), r"unexpected tensor conv9\.weight"),
        (lambda s: s.update({"conv1.bias": torch.full((128,), torch.nan)}), r"conv1\.bias holds values that are not"),
    ],
)
def test_a_wrong_tensor_is_named(
    change: Callable[[State], object], message: str, teacher: State, tmp_path: Path
) -> None:
    state = dict(teacher)
    change(state)
    with pytest.raises(WeightsError, match=message):
        load_teacher("small", as_pickle(tmp_path / "t", state))


def test_archives_that_cannot_be(teacher: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"does not hold one file 'pretrained_teacher_small\.pth'"):
        load_teacher("small", archive(tmp_path / "a.zip", teacher, "other.pth"))
    whole = archive(tmp_path / "b.zip", teacher)
    (tmp_path / "c.zip").write_bytes(whole.read_bytes()[:-100])
    # Torch's own files are archives too: of a cut one, the inner one may be all that is found.
    for kept in (10, 10_000, whole.stat().st_size - 100):
        (tmp_path / "c.zip").write_bytes(whole.read_bytes()[:kept])
        with pytest.raises(WeightsError, match=r"c\.zip: .*truncated"):
            load_teacher("small", tmp_path / "c.zip")
    with pytest.raises(WeightsError, match="not only plain tensors: refused"):
        load_teacher("small", archive(tmp_path / "d.zip", {"conv1.weight": Path("x")}))
    monkeypatch.setattr("andon.weights.state_dicts._LARGEST_MEMBER", 1000)
    with pytest.raises(WeightsError, match="which no weights do"):
        load_teacher("small", whole)


def test_published_archive_in_the_cache(
    teacher: State, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = archive(tmp_path / "whole.zip", teacher)
    pin(monkeypatch, whole)
    (known,) = parts_named(PART)
    assert part_status(known).source is None
    with pytest.raises(WeightsError, match=r"not on this machine.*http://127\.0\.0\.1:9/t\.zip"):
        verify_part(known)
    with pytest.raises(WeightsError, match=r"cannot be fetched.*put it at .*t\.zip"):
        fetch_part(known)

    (cache / "t.zip").write_bytes(whole.read_bytes())
    status = verify_part(known)
    assert (status.source, status.path, status.size) == ("cache", cache / "t.zip", whole.stat().st_size)
    assert fetch_part(known) == status
    network, record = load_teacher("small", "imagenet")
    assert (record.source, record.name) == ("cache", "imagenet")
    assert torch.equal(network.conv1.weight, teacher["conv1.weight"])

    (cache / "t.zip").write_bytes(whole.read_bytes()[:-1])
    for use in (lambda: verify_part(known), lambda: load_teacher("small", "imagenet"), lambda: fetch_part(known)):
        with pytest.raises(WeightsError, match=r"t\.zip: SHA-256 is .*damaged"):
            use()


def test_verification_finds_a_wrong_shape_behind_a_right_hash(
    teacher: State, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = archive(cache / "t.zip", dict(teacher) | {"conv4.bias": torch.zeros(5)})
    pin(monkeypatch, whole)
    with pytest.raises(WeightsError, match=r"t\.zip: tensor conv4\.bias has shape \[5\]"):
        verify_part(parts_named(PART)[0])


def test_random_parts_say_so() -> None:
    first, record = load_teacher("small", "random:3")
    assert not record.pretrained
    assert record.source == "random"
    torch.manual_seed(1)
    again, _ = load_teacher("small", "random:3")
    assert torch.equal(first.conv4.weight, again.conv4.weight)
    assert not load_discrete_latent_model("random")[1].pretrained


def test_names_that_are_not_known(cache: Path) -> None:
    with pytest.raises(ConfigError, match="unknown part 'resnet19'; known: andon-features"):
        parts_named("resnet19")
    with pytest.raises(ConfigError, match=r"part resnet18 has no weights 'x'; known: tv_in1k, a1_in1k"):
        parts_named("resnet18", "x")
    assert [p.name for p in parts_named("resnet18", "imagenet")] == ["tv_in1k"], "aliases work"
    with pytest.raises(WeightsError, match=r"there is no file imagnet; published weights have the names .*imagenet"):
        find_part(PART, "imagnet")


def test_all_published_parts_are_listed_and_what_comes_with_the_package_is_whole() -> None:
    parts = known_parts()
    assert {(p.part, p.name) for p in parts} == {("andon-features", "embedded"), *PUBLISHED}
    for part in parts:
        if part.name == "embedded" or part.part == "efficientnet_lite0":
            assert verify_part(part).source == ("package" if part.part == "efficientnet_lite0" else "embedded")
            assert part.licence == "Apache-2.0"


def test_the_codebook_of_the_package_reconstructs_images_it_has_not_seen() -> None:
    model, record = load_discrete_latent_model("embedded")
    assert (record.source, record.licence, record.pretrained) == ("embedded", "Apache-2.0", True)
    images = np.stack([rendered_image(99, index, 256) for index in range(6)])
    batch = Transform(normalisation="unit").normalise(images)
    result = model(batch)
    error = float((result.reconstruction.clamp(0, 1) - batch).square().mean())
    assert error < 0.4 * float(batch.var((2, 3)).mean()), "far better than each image's mean colour"
    assert result.bottom.indices.unique().numel() > 200
