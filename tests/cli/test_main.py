"""The whole command line: quick help, one line and exit code 2 for every mistake, interrupts."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import andon.synthetic as andon_synthetic
from andon import __version__
from tests.cli.conftest import Andon

GROUPS = ("demo", "evaluate", "data", "bench", "methods", "weights", "pretrain")


def test_help_reads_like_a_table_of_contents(andon: Andon) -> None:
    text = andon("--help").stdout
    assert all(command in text for command in GROUPS)
    assert andon("--version").stdout == f"andon {__version__}\n"


@pytest.mark.parametrize("args", [(), ("bench",), ("pretrain",)])
def test_a_group_without_a_command_shows_its_help_alone(andon: Andon, args: tuple[str, ...]) -> None:
    done = andon(*args, code=2)
    assert "Usage" in done.stdout
    assert done.stderr == ""


def test_help_costs_neither_torch_nor_a_table_library() -> None:
    code = (
        "import sys; sys.argv = ['andon', 'pretrain', '--help']\n"
        "from andon.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: print(sorted({'torch', 'pandas', 'cv2', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("frobnicate",), "No such command 'frobnicate'"),
        (("bench", "status"), "Missing option '--store'"),
        (("bench", "status", "--stone", "x"), "No such option: --stone"),
        (("data", "info", "absent"), "absent"),
        (("bench", "run", "-s", "store"), "nothing to run"),
        (("bench", "run", "absent.yaml", "-s", "store"), "absent.yaml"),
        (("bench", "run", "-d", "absent", "-s", "store"), "absent"),
        (("bench", "run", "demo", "-m", "padim", "-s", "store"), "--method, --set, --preset and --features"),
        (("bench", "run", "-d", "{images}", "-m", "patchcor", "-s", "store"), "unknown method 'patchcor'"),
        (("bench", "run", "-d", "{images}", "-m", "padim", "--set", "padim.sigmma=1", "-s", "store"), "sigmma"),
        (("bench", "run", "-d", "{images}", "--set", "padim.sigma", "-s", "store"), "METHOD.OPTION=VALUE"),
        (("bench", "run", "-d", "{images}", "-c", "nuts", "-s", "store"), "nuts"),
        (("bench", "status", "-s", "absent"), "absent"),
        (("bench", "report", "-s", "absent"), "absent"),
        (("evaluate", "--maps", "absent", "--data", "{images}"), "absent"),
        (("evaluate", "--maps", "{images}", "--data", "{images}", "--limit", "2"), "limit"),
        (("data", "synth", "line", "--knob", "light"), "--knob 'light': expected NAME=VALUE"),
        (("data", "synth", "line", "--knob", "light=bright"), "option 'light'"),
        (("data", "synth", "line", "--knob", "heat=2"), "unknown option 'heat'; known: light, pose"),
        (("data", "synth", "line", "--task", "screwdriver"), "screwdriver"),
        (("data", "synth", "line", "--count", "many"), "--count"),
        (("data", "synth", "line", "--count", "0,1,1"), "--count 0,1,1: option 'train'"),
        (("methods", "show", "patchcor"), "patchcor"),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(
    tmp_path: Path,
    images: Path,
    args: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    andon: Andon,
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = andon(*(a.replace("{images}", str(images)) for a in args), code=2).stderr
    assert shown.startswith("error: ")
    assert message in shown
    assert len(shown.strip().splitlines()) == 1
    assert not any(tmp_path.iterdir())


def test_an_interrupt_says_how_to_go_on(andon: Andon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(andon_synthetic, "generate", interrupted)
    done = andon("data", "synth", tmp_path / "line", code=130)
    assert done.stderr == "interrupted; run the same command again to go on\n"


def test_ctrl_c_in_a_process_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "andon", "data", "synth", str(tmp_path / "line"), "--count", "full", "--jobs", "1"]
    # A suite that was started in a shell's background ignores interrupts, and what it starts would inherit that.
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 60
        while not any(tmp_path.rglob("*.png")) and time.monotonic() < deadline and running.poll() is None:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, shown = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130
    assert "run the same command again" in shown
    assert "Traceback" not in shown


def test_a_reader_that_leaves_is_no_error(images: Path) -> None:
    command = f"{sys.executable} -m andon data info '{images}' | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
