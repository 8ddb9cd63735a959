"""``andon serve`` as a process: its end, its death, and what it refuses."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from andon.inspection import Inspector, Journal, Station, train_inspector
from tests.cli.conftest import Andon
from tests.inspection.parts import part
from tests.inspection.station.serving import TOKEN, command, image_bytes

GOOD, BAD = image_bytes(50), image_bytes(51, defect=True)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def inspector() -> Inspector:
    return train_inspector([part(seed) for seed in range(12)], "thumbnail-nn", config={"transform": {"size": [16, 16]}})


@pytest.fixture(scope="module")
def file(inspector: Inspector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "seal.andon"
    inspector.save(path)
    return path


def test_serving_until_sigterm_finishes_what_is_in_flight(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "station"
    with command(file, f"cap={file}", "--folder", folder, environment=ENVIRONMENT) as running:
        url = running.address()
        assert [i["name"] for i in httpx.get(f"{url}/v1/inspectors").json()["inspectors"]] == ["seal", "cap"]
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as slow:
            head = f"POST /v1/inspect?inspector=cap HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(BAD)}\r\n\r\n"
            slow.sendall(head.encode() + BAD[:500])
            time.sleep(0.3)  # the request is admitted, its body on the way
            running.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{url}/healthz")
            slow.sendall(BAD[500:])
            told = slow.recv(65536)
        assert told.startswith(b"HTTP/1.1 200"), told
        assert running.ended() == 0
    output = running.output()
    assert "seal, cap at http://127.0.0.1:" in output
    assert "Traceback" not in output
    journal = Journal(folder / "journal.sqlite")
    assert [e.verdict for e in journal.entries()] == ["stop"]
    journal.close()


@pytest.mark.slow
def test_killed_in_the_middle_it_has_lost_no_acknowledged_verdict(file: Path, tmp_path: Path) -> None:
    acknowledged: dict[int, str] = {}
    for _ in range(2):
        with command(file, "--folder", tmp_path / "station", environment=ENVIRONMENT) as running:
            url, stop = running.address(), threading.Event()

            def work(number: int, url: str = url, stop: threading.Event = stop) -> None:
                data = image_bytes(number, defect=bool(number % 2))
                with httpx.Client(base_url=url, timeout=20) as client:
                    while not stop.is_set():
                        try:
                            answer = client.post("/v1/inspect", content=data)
                        except httpx.HTTPError:
                            return
                        assert answer.status_code == 200
                        assert answer.json()["id"] not in acknowledged
                        acknowledged[answer.json()["id"]] = answer.json()["digest"]

            threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            before = len(acknowledged)
            while len(acknowledged) < before + 60:
                time.sleep(0.01)
            running.process.kill()
            stop.set()
            for thread in threads:
                thread.join()
            assert running.ended() == -signal.SIGKILL
    with command(file, "--folder", tmp_path / "station", environment=ENVIRONMENT) as running:
        found, before_id = {}, None
        while True:
            query = {"limit": 1000} | ({} if before_id is None else {"before": before_id})
            page = httpx.get(f"{running.address()}/v1/entries", params=query).json()
            found |= {entry["id"]: entry["digest"] for entry in page["entries"]}
            before_id = page["next"]
            if before_id is None:
                break
        assert "set aside" not in running.output()
    assert len(acknowledged) >= 120
    assert acknowledged.items() <= found.items()
    with sqlite3.connect(tmp_path / "station" / "journal.sqlite") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_other_addresses_need_a_token(
    file: Path, tmp_path: Path, andon: Andon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANDON_TOKENS", raising=False)
    done = andon("serve", file, "--host", "0.0.0.0", "--port", "0", "--folder", tmp_path / "s", code=2)
    assert "--token-file" in done.stderr
    assert done.stderr.count("\n") == 1
    tokens = tmp_path / "tokens"
    tokens.write_text(TOKEN)
    tokens.chmod(0o644)
    arguments = (file, "--host", "0.0.0.0", "--token-file", tokens, "--folder", tmp_path / "s")
    with command(*arguments, environment=ENVIRONMENT) as running:
        url = running.address().replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/v1/inspectors").status_code == 401
        known = {"Authorization": f"Bearer {TOKEN}", "Host": "station.plant"}
        assert httpx.post(f"{url}/v1/inspect", content=GOOD, headers=known).json()["verdict"] == "pass"
        running.process.send_signal(signal.SIGINT)
        assert running.ended() == 0
    assert "chmod 600" in running.output()
    assert TOKEN not in running.output()


def test_what_cannot_be_served_is_one_line_and_exit_code_2(
    file: Path, inspector: Inspector, tmp_path: Path, andon: Andon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANDON_TOKENS", raising=False)

    def refused(*arguments: str | Path, words: str) -> None:
        done = andon("serve", *arguments, code=2)
        assert words in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1

    folder = ("--folder", tmp_path / "station", "--port", "0")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused(file, "--folder", tmp_path, "--port", str(taken.getsockname()[1]), words="give another --port")
    station = Station({"seal": inspector}, tmp_path / "held")
    refused(file, "--folder", tmp_path / "held", "--port", "0", words="in use by another station")
    station.close()
    refused(tmp_path / "none.andon", *folder, words="no such file")
    (tmp_path / "text.andon").write_text("text")
    refused(tmp_path / "text.andon", *folder, words="is not an inspector's file")
    os.mkfifo(tmp_path / "pipe.andon")
    refused(tmp_path / "pipe.andon", *folder, words="pipe")
    refused(file, file, *folder, words="another inspector has the name seal")
    refused(f"a b={file}", *folder, words="no such file")
    refused(file, "--token-file", tmp_path / "none", *folder, words="no such file")
    refused(file, "--host", "no such host", *folder, words="--host")
    refused(file, "--queue", "0", *folder, words="queue")
    refused(file, "--webhook", "ftp://x", *folder, words="webhook")
    refused(file, "--mqtt", "mqtt://broker", *folder, words="topic")
    (tmp_path / "plain").write_text("")
    refused(file, "--port", "0", "--folder", tmp_path / "plain", words="plain")
    Journal(tmp_path / "newer" / "journal.sqlite").close()
    with sqlite3.connect(tmp_path / "newer" / "journal.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    refused(file, "--port", "0", "--folder", tmp_path / "newer", words="newer version")


def test_without_the_packages_it_says_how_to_get_them(file: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['fastapi'] = None; sys.modules['uvicorn'] = None\n"
        f"sys.argv = ['andon', 'serve', {str(file)!r}, '--folder', {str(tmp_path)!r}]\n"
        "from andon.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 2
    assert "pip install 'andon[serve]'" in done.stderr
    assert done.stderr.count("\n") == 1
