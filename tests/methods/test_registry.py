"""Methods by name, by file, and the messages for what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from andon.core import AndonError
from andon.methods import create_method, method_class, method_names

PLUGIN = """
import numpy as np
from andon.core import Prediction
from andon.methods import FitReport, Method, MethodConfig

class Mean(Method):
    name, title, Config = "mean-colour", "Mean colour", MethodConfig
    def fit(self, train, *, seed=0, device="cpu", progress=lambda *a: None):
        return FitReport(n_train=len(list(train)))
    def predict_batch(self, batch):
        return Prediction(batch.mean((1, 2, 3)).numpy(), None)
    def state_dict(self):
        return {}
    def load_state_dict(self, state):
        pass
"""


def test_every_listed_method_can_be_made_with_its_defaults() -> None:
    names = method_names()
    assert {"padim", "patchcore", "thumbnail-nn"} <= set(names)
    for name in names:
        method = create_method(name)
        assert method.name == name
        assert method.title
        assert type(method.config) is type(method).Config


def test_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(AndonError, match=r"unknown method 'patchcor'.*patchcore"):
        create_method("patchcor")


def test_unknown_option_names_itself_and_the_known_ones() -> None:
    with pytest.raises(AndonError, match=r"padim: unknown option 'sigmma'; known: .*sigma"):
        create_method("padim", sigmma=3)


def test_invalid_option_says_what_came() -> None:
    with pytest.raises(AndonError, match=r"padim: option 'batch_size'.*'many'"):
        create_method("padim", {"batch_size": "many"})


def test_overrides_win_over_the_mapping() -> None:
    assert create_method("padim", {"batch_size": 3}, batch_size=5).config.batch_size == 5


def test_a_method_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    method = create_method(f"{file}:Mean")
    assert method.title == "Mean colour"


@pytest.mark.parametrize(
    ("text", "reference", "message"),
    [
        ("", "absent.py:Mean", "no file"),
        ("raise RuntimeError('boom')", "mine.py:Mean", "fails when imported.*boom"),
        ("Mean = 3", "mine.py:Mean", "no class Mean"),
    ],
)
def test_a_bad_file_is_one_clear_message(tmp_path: Path, text: str, reference: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(AndonError, match=message):
        method_class(str(tmp_path / reference))


PRESETS = [(name, preset) for name in method_names() for preset in method_class(name).presets]


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_presets_are_valid_and_the_embedded_ones_need_nothing_from_outside(name: str, preset: str) -> None:
    config = create_method(name, preset=preset).config
    if preset == "embedded":
        assert getattr(config, "weights", "embedded") == "embedded"


def test_options_win_over_a_preset_inside_of_mappings_too() -> None:
    method = create_method("patchcore", {"transform": {"crop": [192, 192]}}, preset="embedded", top_k=3)
    assert method.transform.size == (224, 224)
    assert method.transform.crop == (192, 192)
    assert method.config.top_k == 3  # type: ignore[attr-defined]
    with pytest.raises(AndonError, match="patchcore: unknown preset 'nonsense'; its presets: study, embedded"):
        create_method("patchcore", preset="nonsense")
    with pytest.raises(AndonError, match="thumbnail-nn: unknown preset 'study'; it has none"):
        create_method("thumbnail-nn", preset="study")
