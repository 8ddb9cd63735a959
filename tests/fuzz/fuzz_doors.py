"""Damaged input at every door: what is refused in one line, what is let in, and what goes wrong.

    python -m tests.fuzz.fuzz_doors [--inputs 4000] [--seed 0] [--door NAME …] [--write docs/reliability.md]

Each door's inputs are tried in a process of its own, one after another; the same seed gives the same inputs. Counted:

    refused       an ``AndonError``, or a damaged entry set aside as promised
    let in        no error: damage that leaves a file valid, or that the format cannot notice
    several lines a refusal whose message has more than one line
    traceback     any other exception, or the process's death
    hang          no answer within 10 seconds
    over memory   more resident memory, over the process's at rest, than the door's bound

The exit code is 1 if anything but refusals and admissions occurred.
"""

# ruff: noqa: T201 (a script)

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 10
_SHOWN = 5
_FAULTS = ("several lines", "traceback", "hang", "over memory")
_BEGIN, _END = "<!-- fuzz: begin -->", "<!-- fuzz: end -->"


class _Hang(BaseException):
    """Not an Exception: nobody may take it for a damaged file."""


def _alarm(number: int, frame: object) -> None:
    raise _Hang


def _status(key: str) -> float:
    """A figure of this process, MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _try(door: object, seed: int, number: int, folder: Path) -> tuple[str, str]:
    """Outcome (refused, let in, several lines, traceback, hang) and what to say of it."""
    import numpy as np

    from andon.core import AndonError
    from tests.fuzz.doors import Door, SetAsideError

    assert isinstance(door, Door)
    rng = np.random.default_rng([seed, number])
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        door.attempt(rng, folder)
        return "let in", ""
    except SetAsideError:
        return "refused", ""
    except AndonError as error:
        if "\n" in str(error):
            return "several lines", repr(str(error)[:300])
        return "refused", ""
    except _Hang:
        return "hang", "".join(traceback.format_exc()[-600:])
    except Exception:
        return "traceback", traceback.format_exc()[-1500:]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def child(name: str, seed: int, start: int, stop: int, folder: Path) -> None:
    """Tries inputs ``start`` to ``stop``; one line of JSON each on standard output."""
    import warnings

    from tests.fuzz.doors import DOORS

    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _alarm)
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)  # what decoders print
    door = next(d for d in DOORS if d.name == name)
    door.prepare(folder)
    door.warm(folder)
    rest = _status("VmRSS")
    most = int(_status("VmSize") + 8192) * 2**20  # a forged size must not take the machine down
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for number in range(start, stop):
        _reset_peak()
        outcome, text = _try(door, seed, number, folder)
        out.write(json.dumps([outcome, round(_status("VmHWM") - rest, 1), text]) + "\n")


@dataclass
class Tally:
    """What became of one door's inputs."""

    door: str
    bound: int
    counts: Counter[str] = field(default_factory=Counter)
    peak: float = 0.0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def add(self, number: int, outcome: str, peak: float, text: str) -> None:
        self.counts["inputs"] += 1
        self.counts[outcome] += 1
        self.peak = max(self.peak, peak)
        if peak > self.bound:
            self.counts["over memory"] += 1
            text += f" {peak:.0f} MB"
        if outcome not in ("refused", "let in") or peak > self.bound:
            self.faults.append(f"{self.door}, input {number}: {outcome}: {text}")

    @property
    def faulty(self) -> int:
        return sum(self.counts[key] for key in _FAULTS)


def run_door(name: str, bound: int, inputs: int, seed: int) -> Tally:
    """Tries all inputs of a door; a process that dies is the fault of the input that it had, and another goes on."""
    tally, started, number = Tally(name, bound), time.monotonic(), 0
    while number < inputs:
        folder = Path(tempfile.mkdtemp(prefix="andon-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        command = [sys.executable, "-m", "tests.fuzz.fuzz_doors", "--child", name, "--seed", str(seed)]
        command += ["--start", str(number), "--inputs", str(inputs), "--folder", str(folder)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            begun = number
            # Time for the imports at first; then an input that not even the alarm ends.
            while select.select([process.stdout], [], [], 120 if number == begun else 3 * SECONDS)[0]:
                line = process.stdout.readline()
                if not line:
                    break
                tally.add(number, *json.loads(line))
                number += 1
            else:
                process.kill()
                tally.add(number, "hang", 0.0, "killed")
                number += 1
        shutil.rmtree(folder, ignore_errors=True)
        if number < inputs and process.returncode not in (0, -signal.SIGKILL):
            if number == begun and begun == 0:
                raise RuntimeError(f"{name}: the valid inputs are not let in; run with --child to see why")
            tally.add(number, "traceback", 0.0, f"the process died ({process.returncode})")
            number += 1
    tally.seconds = time.monotonic() - started
    return tally


def table(tallies: list[Tally], seed: int) -> str:
    inputs = sorted({t.counts["inputs"] for t in tallies})
    lines = [
        f"`python -m tests.fuzz.fuzz_doors --inputs {inputs[-1]} --seed {seed} --write docs/reliability.md`, "
        f"{datetime.date.today()}, Python {platform.python_version()}:",
        "",
        "| door | inputs | refused | let in | several lines | tracebacks | hangs | over memory | bound, MB | peak |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for t in tallies:
        cells = [t.counts[key] for key in ("inputs", "refused", "let in", *_FAULTS)]
        lines.append(f"| {t.door} | {' | '.join(str(c) for c in cells)} | {t.bound} | {max(0.0, t.peak):.0f} |")
    return "\n".join(lines) + "\n"


def write(path: Path, text: str, begin: str = _BEGIN, end: str = _END) -> None:
    """Puts the table between its marks in a page."""
    page = path.read_text(encoding="utf-8")
    head, _, rest = page.partition(begin)
    _, _, tail = rest.partition(end)
    path.write_text(f"{head}{begin}\n{text}{end}{tail}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--door", action="append", help="only doors whose name begins so; repeatable")
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--start", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.seed, options.start, options.inputs, options.folder)
        return 0
    from tests.fuzz.doors import DOORS

    chosen = [d for d in DOORS if not options.door or any(d.name.startswith(name) for name in options.door)]
    tallies = []
    for door in chosen:
        tally = run_door(door.name, door.bound, options.inputs, options.seed)
        tallies.append(tally)
        print(f"{door.name}: {dict(tally.counts)}, peak {tally.peak:.0f} MB, {tally.seconds:.0f} s", flush=True)
        for fault in tally.faults[:_SHOWN]:
            print("   ", fault.replace("\n", "\n    "), flush=True)
    print(table(tallies, options.seed))
    if options.write:
        write(options.write, table(tallies, options.seed))
    return int(any(t.faulty for t in tallies))


if __name__ == "__main__":
    sys.exit(main())
