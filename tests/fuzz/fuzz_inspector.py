"""Damaged inspector files: refused in one line, or let in with the same verdict; nothing else.

    python -m tests.fuzz.fuzz_inspector [--inputs 20000] [--seed 0] [--write docs/reliability.md]

Half of the inputs are damaged bytes (flipped bits, cut ends, swapped, doubled and renamed members, forged sizes): one
that is let in must give the scores, thresholds and verdicts of the file as it was. The other half is damaged inside,
with the sums made again, as only somebody who means it can: what is let in may be another inspector, but a sound one.
Counted as faults: a traceback, a refusal of several lines, no answer within 10 seconds, more than 256 MB over the
process at rest, and a changed verdict of damaged bytes. The exit code is 1 if there is any.
"""

# ruff: noqa: T201 (a script)

from __future__ import annotations

import argparse
import datetime
import platform
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from andon.core import AndonError
from andon.inspection import Inspector, load_inspector, train_inspector
from tests.fuzz.fuzz_doors import _alarm, _Hang, _reset_peak, _status, write
from tests.inspection.damage import forged, harmed
from tests.inspection.parts import part

SECONDS, MEGABYTES = 10, 256
_FAULTS = ("traceback", "several lines", "hang", "over memory", "changed verdict")
_BEGIN, _END = "<!-- inspector fuzz: begin -->", "<!-- inspector fuzz: end -->"


def valid_files(folder: Path) -> list[bytes]:
    """Inspectors with all kinds of members."""
    good = [part(seed) for seed in range(8)]
    small = {"transform": {"size": [16, 16]}}
    plain = train_inspector(good, "thumbnail-nn", config=small)
    aligned = train_inspector(good, "thumbnail-nn", config=small, align=(20, 15, 56, 42), roi="10,10,70,50", rotation=0)
    files = []
    for number, inspector in enumerate((plain, aligned)):
        inspector.save(folder / f"{number}.andon")
        files.append((folder / f"{number}.andon").read_bytes())
    return files


def says(inspector: Inspector) -> tuple[object, ...]:
    """Everything that a verdict hangs on."""
    found = [inspector.inspect(part(50, defect=defect)) for defect in (False, True)]
    return (inspector.thresholds, *((v.verdict, v.score, v.p_value, v.area) for v in found))


def attempt(rng: np.random.Generator, file: bytes, expected: tuple[object, ...], path: Path) -> tuple[str, str]:
    """Outcome of one input and what to say of it."""
    genuine = bool(rng.random() < 0.5)
    data = harmed(rng, file) if genuine else forged(rng, file)
    path.write_bytes(data)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        told = says(load_inspector(path))
        if data == file:
            return "unharmed", ""
        if genuine:
            return ("let in", "") if told == expected else ("changed verdict", f"{told} instead of {expected}")
        return "forged, sound", ""
    except AndonError as error:
        return ("refused", "") if "\n" not in str(error) else ("several lines", repr(str(error)))
    except _Hang:
        return "hang", traceback.format_exc()[-600:]
    except Exception:
        return "traceback", traceback.format_exc()[-1500:]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def run(inputs: int, seed: int, folder: Path) -> tuple[Counter[str], float, list[str]]:
    """What became of the inputs, the most memory that one took (MB), and the faults."""
    files = valid_files(folder)
    expected = [says(load_inspector(folder / f"{number}.andon")) for number in range(len(files))]
    counts, peak, faults, rest = Counter[str](), 0.0, list[str](), _status("VmRSS")
    for number in range(inputs):
        rng = np.random.default_rng([seed, number])
        which = int(rng.integers(len(files)))
        _reset_peak()
        outcome, text = attempt(rng, files[which], expected[which], folder / "tried.andon")
        took = _status("VmHWM") - rest
        peak = max(peak, took)
        if took > MEGABYTES:
            outcome, text = "over memory", f"{took:.0f} MB"
        counts[outcome] += 1
        if outcome in _FAULTS:
            faults.append(f"input {number}: {outcome}: {text}")
    return counts, peak, faults


def one_row(
    script: str, columns: tuple[str, ...], counts: Counter[str], peak: float, options: argparse.Namespace
) -> str:
    """The table of a script's inputs, with the command that makes it."""
    inputs, seed = options.inputs, options.seed
    return (
        f"`python -m tests.fuzz.{script} --inputs {inputs} --seed {seed} --write docs/reliability.md`, "
        f"{datetime.date.today()}, Python {platform.python_version()}:\n\n"
        f"| inputs | {' | '.join(columns)} | peak, MB |\n|{'---:|' * (len(columns) + 2)}\n"
        f"| {inputs} | {' | '.join(str(counts[c]) for c in columns)} | {max(0.0, peak):.0f} |\n"
    )


def given(description: str | None) -> argparse.Namespace:
    """Options of a script; what it runs is quiet, and has one thread."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    return options


def main() -> int:
    options = given(__doc__)
    signal.signal(signal.SIGALRM, _alarm)
    most = int(_status("VmSize") + 8192) * 2**20  # a forged size must not take the machine down
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        counts, peak, faults = run(options.inputs, options.seed, Path(folder))
    for fault in faults[:10]:
        print(fault)
    columns = ("refused", "let in", "unharmed", "forged, sound", *_FAULTS)
    table = one_row("fuzz_inspector", columns, counts, peak, options)
    print(f"{table}{time.monotonic() - started:.0f} s")
    if options.write:
        write(options.write, table, _BEGIN, _END)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
