"""Jobs for the engine's tests: they run in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from andon.core import AndonError, ProgressCallback


def ok(text: str, progress: ProgressCallback) -> None:
    progress("work", 1, 2)
    progress("work", 2, 2)


def writes(path: Path, progress: ProgressCallback) -> None:
    import torch

    sys.stdout.write("printed\n")
    os.write(2, b"from below\n")
    path.write_text(f"{os.getpid()} {torch.get_num_threads()} {sys.modules['__main__'].__name__}")


def fails(progress: ProgressCallback) -> None:
    raise ZeroDivisionError("on\npurpose")


def fails_for_the_user(progress: ProgressCallback) -> None:
    raise AndonError("image.png: is no image")


def exits(progress: ProgressCallback) -> None:
    sys.stdout.write("last words\n")
    sys.stdout.flush()
    os._exit(3)


def exits_quietly(progress: ProgressCallback) -> None:
    os._exit(0)


def exits_with_255(progress: ProgressCallback) -> None:
    os._exit(255)


def dies(progress: ProgressCallback) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dies_once(path: Path, progress: ProgressCallback) -> None:
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def crashes(progress: ProgressCallback) -> None:
    import faulthandler

    faulthandler._sigsegv()


def hangs(progress: ProgressCallback) -> None:
    progress("hang", 0, 1)
    time.sleep(600)


def hangs_with_a_child(path: Path, progress: ProgressCallback) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    path.write_text(str(child.pid))
    time.sleep(600)


def writes_its_pid_and_hangs(path: Path, progress: ProgressCallback) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(600)


def kills_its_server(path: Path, times: int, progress: ProgressCallback) -> None:
    """Kills the process that it was forked from, the first times that it runs."""
    pids = path.read_text().split() if path.exists() else []
    path.write_text(" ".join([*pids, str(os.getpid())]))
    if len(pids) < times:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)


def leaves_a_child(path: Path, progress: ProgressCallback) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    path.write_text(str(child.pid))


def exhausts_memory(progress: ProgressCallback) -> None:
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, resource.RLIM_INFINITY))
    hoard = []
    while True:
        hoard.append(bytearray(2**24))
