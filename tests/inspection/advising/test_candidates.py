"""Candidates by name, and the commands that they stand for."""

from __future__ import annotations

import shlex

import numpy as np
import pytest

from andon.cli._options import config_of
from andon.core import ConfigError
from andon.inspection import Candidate, parse_candidate
from andon.inspection.advising.candidates import DEFAULT, Content, content_of, usual_candidates
from andon.methods import create_method

CONTENT = Content(0.2, 0.3, 0.7, 0.65)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("patchcore", Candidate("patchcore")),
        ("padim:designed", Candidate("padim", "designed")),
        ("patchcore@512", Candidate("patchcore", None, 512)),
        ("patchcore:designed@256+crop", Candidate("patchcore", "designed", 256, True)),
        ("thumbnail-nn+crop", Candidate("thumbnail-nn", None, None, True)),
    ],
)
def test_a_candidate_is_read_as_it_is_written(text: str, expected: Candidate) -> None:
    assert parse_candidate(text) == expected
    assert expected.label == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "unknown method 'nothing'"),
        ("padim:odd", "unknown preset 'odd'"),
        ("patchcore@9", "a size is 32..2048 pixels"),
        ("", "expected METHOD"),
        ("no/file.py:Mine", "there is no file"),
    ],
)
def test_what_is_no_candidate(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_candidate(text)


@pytest.mark.parametrize("text", ["patchcore", "patchcore@512", "patchcore+crop", "padim:designed@256+crop"])
def test_the_command_gives_the_method_that_was_measured(text: str) -> None:
    candidate = parse_candidate(text)
    words = shlex.split(candidate.arguments(CONTENT))
    named = dict(zip(words[::2], words[1::2], strict=True))
    sets = [value for option, value in zip(words[::2], words[1::2], strict=True) if option == "--set"]
    method = create_method(named.get("--method", "patchcore"), config_of(sets), preset=named.get("--preset"))
    assert method.config == candidate.create(CONTENT).config
    assert method.name == candidate.method


def test_the_default_needs_no_arguments() -> None:
    assert DEFAULT.arguments(CONTENT) == ""
    assert DEFAULT.create(CONTENT).config == create_method("patchcore").config


def test_content_is_found_and_a_crop_holds_it() -> None:
    image = np.full((200, 400, 3), 50, np.uint8)
    image[60:120, 160:260] = np.random.default_rng(0).integers(0, 255, (60, 100, 3))
    content = content_of([image])
    assert content.top == pytest.approx(0.3, abs=0.04)
    assert content.bottom == pytest.approx(0.6, abs=0.04)
    assert content.left == pytest.approx(0.4, abs=0.04)
    assert content.right == pytest.approx(0.65, abs=0.04)
    assert content.worth_cropping
    region = Candidate("patchcore", crop=True).create(content).config.transform.region
    assert region.top <= content.top + 0.005
    assert region.bottom >= content.bottom - 0.005
    assert region.left <= content.left + 0.005
    assert region.right >= content.right - 0.005
    seen = Candidate("patchcore", crop=True).create(content).config.transform.output_size
    assert seen == create_method("patchcore").config.transform.output_size


def test_without_content_or_with_content_everywhere_nothing_is_cropped() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert not content_of([noise]).worth_cropping
    assert content_of([np.zeros((64, 64, 3), np.uint8)]) == (0, 0, 1, 1)
    labels = [c.label for c in usual_candidates((400, 400), content_of([noise]))]
    assert labels == ["patchcore", "patchcore@256", "padim", "padim:designed", "thumbnail-nn"]
    labels = [c.label for c in usual_candidates((600, 900), CONTENT)]
    assert labels[1] == "patchcore@512"
    assert labels[-1] == "patchcore+crop"
