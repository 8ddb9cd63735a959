"""The presets are configurations that their methods accept, on an extractor that needs nothing from outside."""

from __future__ import annotations

import pytest

from andon.methods.presets import EMBEDDED
from andon.methods.registry import create_method


@pytest.mark.parametrize("name", EMBEDDED)
def test_presets_are_offline_configurations(name: str) -> None:
    method = create_method(name, EMBEDDED[name])
    assert method.extractor.weights.source == "embedded"
    assert method.extractor.weights.pretrained
    assert method.transform.crop is None
