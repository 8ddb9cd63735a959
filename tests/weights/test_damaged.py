"""Damaged files of weights: one ``WeightsError`` whatever the damage, or the tensors that were saved."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from andon.core import WeightsError
from andon.weights import check_state_dict, read_state_dict

FORMS = ("legacy.pth", "zip.pth", "plain.safetensors")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("weights")
    state = torch.nn.Linear(3, 2).state_dict()
    torch.save(state, folder / FORMS[0], _use_new_zipfile_serialization=False)
    torch.save(state, folder / FORMS[1])
    save_file(state, folder / FORMS[2])
    return {name: (folder / name).read_bytes() for name in FORMS}


@settings(max_examples=400, deadline=None)
@given(data=st.data(), form=st.sampled_from(FORMS))
def test_damage_is_one_error(
    data: st.DataObject, form: str, files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(files[form])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, max(0, len(content) - 1)))
        match data.draw(st.sampled_from(["byte", "cut", "insert", "swap"])):
            case "byte":
                content[place : place + 1] = bytes([data.draw(st.integers(0, 255))])
            case "cut":
                del content[place : place + data.draw(st.integers(1, len(files[form])))]
            case "insert":
                content[place:place] = data.draw(st.binary(min_size=1, max_size=9))
            case _:
                content = content[place:] + content[:place]
    path = tmp_path_factory.mktemp("damaged") / form
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check_state_dict(torch.nn.Linear(3, 2), read_state_dict(path), path)
        except WeightsError as error:
            assert str(path) in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["sparse", "quantised", "meta", "float8"])
def test_tensors_that_nothing_can_be_computed_with_are_refused(tmp_path: Path, kind: str) -> None:
    match kind:
        case "sparse":
            weight = torch.eye(3)[:2].to_sparse()
        case "quantised":
            weight = torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 0, torch.qint8)
        case "meta":
            weight = torch.empty((2, 3), device="meta")
        case _:
            weight = torch.ones(2, 3).to(torch.float8_e4m3fn)
    torch.save({"weight": weight, "bias": torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w\.pth"):
        check_state_dict(torch.nn.Linear(3, 2), read_state_dict(tmp_path / "w.pth"), "w.pth")
