"""Going on with a plan that imports code from outside: only what this user has run, unless it is trusted."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from andon.benchmark import ImportsCode, Store, make_plan, resume_plan, run_plan
from andon.benchmark.events import RunEvent
from andon.core import StoreError
from tests.benchmark.test_bench import FAKE, HereEngine
from tests.benchmark.tiny import write_tiny


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store whose plan names ``mine.py`` and was run here."""
    monkeypatch.setenv("ANDON_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path / "data", categories=("bolt",))
    # Each test has a file of its own, for a process imports a file once.
    (tmp_path / "mine.py").write_text(
        f"from pathlib import Path\nPath('imported').touch()\n{FAKE.read_text()}".replace(
            "from __future__ import annotations\n", ""
        )
    )
    run_plan(make_plan(["data"], ["mine.py:FakeMethod"]), "store", engine=HereEngine())
    (tmp_path / "imported").unlink()
    return tmp_path / "store"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_was_run_is_kept_shown_and_run_again(ran: Path, tmp_path: Path) -> None:
    (code,) = Store(ran).plans()[0].code
    assert (code.reference, code.path) == ("mine.py:FakeMethod", str(tmp_path / "mine.py"))
    assert code.sha256 == sha256(tmp_path / "mine.py")
    events: list[RunEvent] = []
    assert len(resume_plan(ran, engine=HereEngine(), on_event=events.append).skipped) == 1
    (said,) = [e.message for e in events if isinstance(e, ImportsCode)]
    assert str(tmp_path / "mine.py") in said
    assert code.sha256 in said


def _another_user(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDON_CACHE", str(tmp_path / "elsewhere"))


def _a_key_of_his_own(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDON_CACHE", str(tmp_path / "elsewhere"))
    other = tmp_path / "other.py"
    shutil.copy(FAKE, other)
    run_plan(make_plan(["data"], ["other.py:FakeMethod"]), tmp_path / "another", engine=HereEngine())


def _changed(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "mine.py").open("a") as file:
        file.write("\n# changed\n")


def _edited_plan(change: Callable[[dict[str, object]], None]) -> Callable[..., None]:
    def edit(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (path,) = (ran / "plans").iterdir()
        stored = json.loads(path.read_text())
        change(stored)
        path.write_text(json.dumps(stored))

    return edit


def _without_code(stored: dict[str, object]) -> None:
    del stored["code"]


def _without_seal(stored: dict[str, object]) -> None:
    stored["code"][0]["seal"] = ""  # type: ignore[index]


def _another_file(stored: dict[str, object]) -> None:
    """The plan names a file whose hash its maker has put in."""
    (Path(str(stored["base"])) / "evil.py").write_text("from pathlib import Path\nPath('imported').touch()\n")
    stored["content"]["methods"][0]["method"] = "evil.py:FakeMethod"  # type: ignore[index]
    stored["code"][0]["reference"] = "evil.py:FakeMethod"  # type: ignore[index]
    stored["code"][0]["path"] = str(Path(str(stored["base"])) / "evil.py")  # type: ignore[index]
    stored["code"][0]["sha256"] = sha256(Path(str(stored["base"])) / "evil.py")  # type: ignore[index]


def _a_module(stored: dict[str, object]) -> None:
    stored["content"]["methods"][0]["method"] = "tests.benchmark.fake_method:FakeMethod"  # type: ignore[index]


@pytest.mark.parametrize(
    "change",
    [
        _another_user,
        _a_key_of_his_own,
        _changed,
        _edited_plan(_without_code),
        _edited_plan(_without_seal),
        _edited_plan(_another_file),
        _edited_plan(_a_module),
    ],
)
def test_code_that_is_not_known_is_not_imported(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[..., None]
) -> None:
    from andon.methods import registry

    change(ran, tmp_path, monkeypatch)
    registry._executed.cache_clear()
    with pytest.raises(StoreError, match=r"SHA-256 [0-9a-f]{64}.*--trust") as refused:
        resume_plan(ran, engine=HereEngine())
    assert not (tmp_path / "imported").exists()
    assert "\n" not in str(refused.value)


def test_trusted_code_is_known_from_then_on(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _another_user(ran, tmp_path, monkeypatch)
    assert len(resume_plan(ran, trust=True, engine=HereEngine()).skipped) == 1
    assert len(resume_plan(ran, engine=HereEngine()).skipped) == 1


def test_methods_of_andon_need_no_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDON_CACHE", str(tmp_path / "cache"))
    data = write_tiny(tmp_path / "data", categories=("bolt",))
    run_plan(make_plan([data], ["thumbnail-nn"]), tmp_path / "store", engine=HereEngine())
    assert Store(tmp_path / "store").plans()[0].code == ()
    assert len(resume_plan(tmp_path / "store", engine=HereEngine()).skipped) == 1
    assert not (tmp_path / "cache").exists()


def test_a_stored_plan_that_is_none_is_one_error(ran: Path) -> None:
    _edited_plan(lambda stored: stored.update(content={"methods": 3}))(ran, ran, None)
    with pytest.raises(StoreError, match="cannot be run"):
        resume_plan(ran, engine=HereEngine())
