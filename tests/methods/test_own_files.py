"""A method's file and the helper modules beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from andon.core import ConfigError
from andon.methods import create_method, method_class, method_files
from andon.methods.registry import code_fingerprint
from tests.methods.test_registry import PLUGIN

METHOD = f"import helper_of_mine\n{PLUGIN}\nVALUE = helper_of_mine.VALUE\n"


def write(folder: Path, helper: str, method: str = METHOD) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "helper_of_mine.py").write_text(helper)
    (folder / "mine.py").write_text(method)
    return f"{folder / 'mine.py'}:Mean"


def value(reference: str) -> object:
    return sys.modules[method_class(reference).__module__].VALUE


def test_a_helper_beside_the_file_is_found_and_nothing_leaks(tmp_path: Path) -> None:
    path, modules = list(sys.path), set(sys.modules)
    one, two = write(tmp_path / "a", "VALUE = 1\n"), write(tmp_path / "b", "VALUE = 2\n")
    assert (value(one), value(two)) == (1, 2), "each method has the helper of its own folder"
    assert sys.path == path
    new = set(sys.modules) - modules
    assert all(name.startswith("andon_user_mine_") for name in new), new
    create_method(one).fit([__import__("numpy").zeros((20, 20, 3), "uint8")])


def test_a_module_of_the_same_name_from_elsewhere_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = type(sys)("helper_of_mine")
    monkeypatch.setitem(sys.modules, "helper_of_mine", other)
    assert value(write(tmp_path / "c", "VALUE = 3\n")) == 3
    assert sys.modules["helper_of_mine"] is other


def test_the_folder_does_not_stand_before_the_standard_library(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("raise RuntimeError('not this one')\n")
    reference = write(tmp_path, "import random\nVALUE = random.random()\n")
    assert isinstance(value(reference), float)


def test_a_changed_helper_is_another_experiment(tmp_path: Path) -> None:
    reference = write(tmp_path, "VALUE = 1\n")
    alone = write(tmp_path / "alone", "", method=PLUGIN)
    first = code_fingerprint(reference)
    (tmp_path / "helper_of_mine.py").write_text("VALUE = 2\n")
    assert code_fingerprint(reference) != first
    unchanged = code_fingerprint(alone)
    (tmp_path / "alone" / "helper_of_mine.py").write_text("VALUE = 2\n")
    assert code_fingerprint(alone) == unchanged, "it does not import it"


def test_files_of_helpers_of_helpers_and_packages(tmp_path: Path) -> None:
    write(tmp_path, "from parts.net import Net\n", method="def learn():\n    import helper_of_mine\n")
    (tmp_path / "parts").mkdir()
    for name in ("__init__", "net"):
        (tmp_path / "parts" / f"{name}.py").write_text("Net = 1\n")
    (tmp_path / "unrelated.py").write_text("")
    names = [path.relative_to(tmp_path).as_posix() for path in method_files(tmp_path / "mine.py")]
    assert names == ["mine.py", "helper_of_mine.py", "parts/__init__.py", "parts/net.py"]


def test_a_helper_that_no_import_statement_names_is_refused(tmp_path: Path) -> None:
    hidden = f"import importlib\nmodule = importlib.import_module('helper_of_mine')\n{PLUGIN}"
    reference = write(tmp_path / "hidden", "VALUE = 1\n", method=hidden)
    with pytest.raises(ConfigError, match=r"loads .*helper_of_mine\.py without an import statement"):
        method_class(reference)
    assert "helper_of_mine" not in sys.modules


def test_a_failing_helper_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    reference = write(tmp_path / "failing", "1 / 0\n")
    path = list(sys.path)
    with pytest.raises(ConfigError, match="fails when imported: ZeroDivisionError"):
        method_class(reference)
    assert sys.path == path
    assert "helper_of_mine" not in sys.modules
