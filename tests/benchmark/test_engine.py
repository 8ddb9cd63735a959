from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from andon.benchmark.engine import Job, LocalEngine, cpu_count
from andon.benchmark.events import Event, Failed, Finished, Progressed, Restarted, Started
from andon.core import AndonError
from tests.benchmark import jobs

ROOT = Path(__file__).parents[2]


def run(*work: Job, engine: LocalEngine | None = None) -> list[Event]:
    events: list[Event] = []
    (engine or LocalEngine(jobs=2, threads=1, preload=("torch",))).run(work, events.append)
    return events


def outcome(events: list[Event], job: str) -> Finished | Failed:
    (last,) = (e for e in events if e.id == job and isinstance(e, Finished | Failed))
    return last


def gone(pid: int) -> bool:
    """Whether a process ends within some seconds."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def wait_for(path: Path) -> str:
    for _ in range(400):
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


def test_one_bad_job_stops_no_other(tmp_path: Path) -> None:
    bad = [
        Job("raises", jobs.fails),
        Job("user error", jobs.fails_for_the_user),
        Job("exits", jobs.exits, log=tmp_path / "exits.log"),
        Job("exits quietly", jobs.exits_quietly),
        Job("killed", jobs.dies),
        Job("crashes", jobs.crashes, log=tmp_path / "crashes.log"),
        Job("hangs", jobs.hangs, timeout=1.5),
        Job("memory", jobs.exhausts_memory),
    ]
    good = [Job(f"good {i}", jobs.ok, ("x",)) for i in range(3)]
    events = run(*bad, *good)

    assert all(isinstance(outcome(events, job.id), Finished) for job in good)
    expected = {
        "raises": ("error", "ZeroDivisionError: on purpose"),
        "user error": ("error", "image.png: is no image"),
        "exits": ("killed", "its process ended with exit code 3 before it had a result"),
        "exits quietly": ("killed", "its process ended with exit code 0 before it had a result"),
        "killed": ("killed", "killed by signal 9 (out of memory?)"),
        "crashes": ("killed", "killed by signal 11 (SIGSEGV)"),
        "hangs": ("timeout", "no result after 1.5 s (its timeout)"),
        "memory": ("error", "out of memory: MemoryError"),
    }
    failures = {job.id: outcome(events, job.id) for job in bad}
    assert {i: (f.kind, f.reason) for i, f in failures.items() if isinstance(f, Failed)} == expected
    details = {i: f.detail for i, f in failures.items() if isinstance(f, Failed)}
    assert "ZeroDivisionError" in details["raises"]
    assert details["exits"] == "last words"
    assert "Segmentation fault" in details["crashes"]


def test_events_of_a_job_come_in_order() -> None:
    events = run(Job("a", jobs.ok, ("x",)))
    assert [type(e) for e in events] == [Started, Progressed, Progressed, Finished]
    assert events[1:3] == [Progressed("a", "work", 1, 2), Progressed("a", "work", 2, 2)]


def test_each_job_has_its_own_process_threads_and_log(tmp_path: Path) -> None:
    work = [Job(f"{i}", jobs.writes, (tmp_path / f"{i}",), log=tmp_path / f"{i}.log") for i in range(3)]
    run(*work, engine=LocalEngine(jobs=2, threads=1))
    said = [(tmp_path / f"{i}").read_text().split() for i in range(3)]
    assert len({pid for pid, _, _ in said} | {str(os.getpid())}) == 4
    assert {threads for _, threads, _ in said} == {"1"}
    assert {main for _, _, main in said} & {"pytest.__main__", "__mp_main__"} == set(), "the main module was imported"
    for i in range(3):
        assert sorted((tmp_path / f"{i}.log").read_text().split("\n")) == ["", "from below", "printed"]


def test_jobs_of_other_groups_go_first() -> None:
    engine = LocalEngine(jobs=2, threads=1)
    work = [Job(f"{g}{i}", jobs.ok, ("x",), group=g) for g in "ab" for i in range(2)]
    events = run(*work, engine=engine)
    started = [e.id for e in events if isinstance(e, Started)]
    assert started[:2] == ["a0", "b0"]
    assert sorted(started) == ["a0", "a1", "b0", "b1"]


def test_timeout_kills_what_the_job_started_too(tmp_path: Path) -> None:
    events = run(Job("h", jobs.hangs_with_a_child, (tmp_path / "pid",), timeout=2))
    assert isinstance(outcome(events, "h"), Failed)
    assert gone(int(wait_for(tmp_path / "pid")))


def test_an_exception_from_the_listener_ends_all_jobs(tmp_path: Path) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, Failed):
            raise KeyboardInterrupt

    engine = LocalEngine(jobs=2, threads=1)
    path = tmp_path / "pid"
    # The second job fails once the first is surely there.
    work = [Job("h", jobs.writes_its_pid_and_hangs, (path,)), Job("t", jobs.hangs, timeout=1)]
    with pytest.raises(KeyboardInterrupt):
        engine.run(work, listen)
    assert gone(int(wait_for(path)))


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_when_the_run_itself_is_killed_its_jobs_end(tmp_path: Path, how: signal.Signals) -> None:
    path = tmp_path / "pid"
    code = (
        # A shell starts what it puts into the background with SIGINT ignored, and children inherit that.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pathlib import Path; from andon.benchmark.engine import *; from tests.benchmark import jobs\n"
        f"LocalEngine(1, 1).run([Job('h', jobs.writes_its_pid_and_hangs, (Path({str(path)!r}),))], lambda e: None)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        pid = int(wait_for(path))
        parent.send_signal(how)
        parent.wait(timeout=20)
        assert gone(pid)
    finally:
        parent.kill()
        parent.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="fork servers")
def test_a_killed_fork_server_costs_what_is_in_flight_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    work = [Job("kills", jobs.kills_its_server, (path, 1)), *(Job(f"good {i}", jobs.ok, ("x",)) for i in range(4))]
    events = run(*work)
    assert all(isinstance(outcome(events, job.id), Finished) for job in work)
    restarted = [e for e in events if isinstance(e, Restarted)]
    assert "kills" in {e.id for e in restarted}
    assert "fork server" in restarted[0].reason
    first, second = path.read_text().split()
    assert first != second
    assert gone(int(first))


@pytest.mark.skipif(sys.platform != "linux", reason="fork servers")
def test_a_job_that_kills_the_fork_server_every_time_fails(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    events = run(Job("kills", jobs.kills_its_server, (path, 99)), Job("good", jobs.ok, ("x",)))
    failed = outcome(events, "kills")
    assert isinstance(failed, Failed)
    assert failed.kind == "killed"
    assert "fork server" in failed.reason
    assert isinstance(outcome(events, "good"), Finished)
    pids = [int(pid) for pid in path.read_text().split()]
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


@pytest.mark.skipif(sys.platform != "linux", reason="fork servers")
def test_fork_servers_that_die_at_once_end_the_run_with_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(process: object) -> None:
        raise EOFError("unexpected EOF")

    monkeypatch.setattr("multiprocessing.context.ForkServerProcess.start", die)
    with pytest.raises(AndonError, match="run the same command again"):
        run(Job("a", jobs.ok, ("x",)))


def test_an_exit_code_of_255_is_the_jobs_own(tmp_path: Path) -> None:
    events = run(Job("a", jobs.exits_with_255))
    failed = outcome(events, "a")
    assert isinstance(failed, Failed)
    assert "exit code 255" in failed.reason


def test_what_a_job_started_does_not_outlive_it(tmp_path: Path) -> None:
    events = run(Job("a", jobs.leaves_a_child, (tmp_path / "pid",)))
    assert isinstance(outcome(events, "a"), Finished)
    assert gone(int(wait_for(tmp_path / "pid")))


def test_numbers_of_jobs_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [LocalEngine(jobs=n).threads for n in (None, 1, 2, 64)] == [1, 1, 1, 1], "figures do not hang on --jobs"
    assert LocalEngine(threads=cpu_count()).jobs == 1
    assert 1 <= LocalEngine().jobs <= cpu_count()  # type: ignore[operator]
    for limit in ("3", "3,2", " 3 "):
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
        assert LocalEngine(threads=3).threads == 3
        with pytest.raises(AndonError, match=r"threads must be at most 3, not 4: .*OMP_NUM_THREADS=3"):
            LocalEngine(threads=4)
    for nothing in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", nothing)
        assert LocalEngine(threads=4).threads == 4
    for wrong in ({"jobs": 0}, {"threads": -1}):
        with pytest.raises(AndonError, match="at least 1"):
            LocalEngine(**wrong)
