"""Methods by name, by file, and the messages for what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.core import AndonError, ConfigError, DetectorError
from andon.methods import Method, create_method, method_class, method_names
from andon.methods.registry import code_fingerprint

PLUGIN = """
from andon.methods import Detector, Method, MethodConfig

class MeanDetector(Detector):
    def forward(self, batch):
        return batch.mean((1, 2, 3)), None

class Mean(Method):
    name, title, Config = "mean-colour", "Mean colour", MethodConfig
    def learn(self, fitting):
        return MeanDetector(self.config)
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
    detector = method.fit([np.full((8, 8, 3), 255, np.uint8)])
    found = detector.predict([np.zeros((8, 8, 3), np.uint8)])
    assert found.anomaly_maps is None
    assert found.image_scores.shape == (1,)
    with pytest.raises(DetectorError, match="does not implement blank"):
        method.restore(detector.state_dict(), detector.report)


def test_a_file_is_executed_once_and_an_importable_class_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "andon_once.py"
    file.write_text("from pathlib import Path\nPath(__file__).with_suffix('.log').open('a').write('x')\n" + PLUGIN)
    first = method_class(f"{file}:Mean")
    monkeypatch.chdir(tmp_path)
    assert method_class("andon_once.py:Mean") is first
    assert file.with_suffix(".log").read_text() == "x"
    monkeypatch.syspath_prepend(tmp_path)
    imported = method_class("andon_once:Mean")
    assert imported is method_class("andon_once:Mean")
    assert imported.__module__ == "andon_once"


def test_code_of_methods_from_outside_has_a_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "andon_outside"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text("SCALE = 1\n")
    (package / "mean.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    before = code_fingerprint("andon_outside.mean:Mean")
    (package / "helper.py").write_text("SCALE = 2\n")
    assert len(before) == 32
    assert code_fingerprint("andon_outside.mean:Mean") != before, "a helper module decides the result, too"
    assert code_fingerprint("padim") == ""


WHOLE = """
from andon.methods import Method, MethodConfig
class Mean(Method):
    name = 'mean'
    title = 'Mean'
    Config = MethodConfig
    def learn(self, fitting): ...
"""


@pytest.mark.parametrize(
    ("text", "reference", "message"),
    [
        ("", "absent.py:Mean", "no file"),
        ("raise RuntimeError('boom')", "mine.py:Mean", "fails when imported.*boom"),
        ("Mean = 3", "mine.py:Mean", "no class Mean"),
        ("raise SystemExit(0)", "mine.py:Mean", "fails when imported"),
        ("def __getattr__(name): raise RuntimeError('no')", "mine.py:Mean", "fails when asked for Mean"),
        ("from andon.methods import Method as Mean", "mine.py:Mean", r"needs a learn\(\) and a Config"),
        (WHOLE.replace("= MethodConfig", "= int"), "mine.py:Mean", r"needs a learn\(\) and a Config"),
        (WHOLE.replace("def learn", "def lean"), "mine.py:Mean", r"needs a learn\(\) and a Config"),
        (WHOLE.replace("title = 'Mean'", "pass"), "mine.py:Mean", "needs a title"),
        (WHOLE, "mine.py:", "'' is no class"),
        (WHOLE, "mine.py:a.b", "'a.b' is no class"),
        (WHOLE, "\0mine.py:Mean", "cannot be read"),
        (WHOLE, "m" * 5000 + ".py:Mean", "cannot be read"),
    ],
)
def test_a_bad_file_is_one_clear_message(tmp_path: Path, text: str, reference: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(AndonError, match=message):
        method_class(str(tmp_path / reference))


NO_REFERENCES = [
    ".x:Class",
    "..:X",
    ":X",
    "x:",
    "a b:C",
    "::",
    "a::b",
    "x\n:Y",
    "\udc80:X",
    "a:b.c",
    "",
    ":",
    ".",
    "9:X",
]


@pytest.mark.parametrize("reference", NO_REFERENCES)
def test_what_is_no_reference_is_a_configuration_error(reference: str) -> None:
    with pytest.raises(ConfigError, match="method"):
        method_class(reference)


WORDS = st.text(max_size=9) | st.sampled_from([".", ":", "..", ".py", "/", " ", "andon", "~", "\0", "base", "Method"])


@settings(max_examples=600, deadline=None)
@given(st.lists(WORDS, max_size=6).map("".join))
def test_any_words_are_a_method_or_a_configuration_error(reference: str) -> None:
    try:
        assert issubclass(method_class(reference), Method)
    except ConfigError as error:
        assert repr(reference) in str(error) or reference in str(error)  # noqa: PT017


PRESETS = [(name, preset) for name in method_names() for preset in method_class(name).presets]


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_presets_are_valid_and_the_designed_ones_need_nothing_from_outside(name: str, preset: str) -> None:
    config = create_method(name, preset=preset).config
    if preset in ("designed", "embedded"):
        assert getattr(config, "weights", "embedded") == "embedded"


def test_options_win_over_a_preset_inside_of_mappings_too() -> None:
    method = create_method("patchcore", {"transform": {"crop": [192, 192]}}, preset="designed", top_k=3)
    assert method.config.transform.size == (224, 224)
    assert method.config.transform.crop == (192, 192)
    assert method.config.top_k == 3  # type: ignore[attr-defined]
    with pytest.raises(
        AndonError, match="patchcore: unknown preset 'nonsense'; its presets: default, study, designed, embedded, paper"
    ):
        create_method("patchcore", preset="nonsense")
    with pytest.raises(AndonError, match="thumbnail-nn: unknown preset 'study'; its presets: paper"):
        create_method("thumbnail-nn", preset="study")
