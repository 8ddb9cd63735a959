"""Kills benchmark runs at random moments and compares what is left with a run that nobody disturbed.

    python tests/fuzz/kill_runs.py --kills 20 --write docs/reliability.md

A victim is the run's own process, an experiment's process, the fork server, or all of them at once; SIGKILL always.
Each of the first three is hit ``--kills`` times, all at once a quarter as often. The plan has a method without
training, one on features, and a trained one that keeps a checkpoint every 0.2 s; every second kill waits for one. After
one to four kills the same command is run until it ends well. Then must hold:

- every figure equals the undisturbed run's, bit for bit (times and memory are not figures);
- nothing of a scratch folder, of checkpoints or of half-written files is left, and nothing was found damaged;
- half a minute after the run no process that it started is alive, whichever of them was killed.

Exit code 1 where one does not.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil

from andon.benchmark import Store

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tests.benchmark.tiny import write_tiny  # noqa: E402

METHOD = '''
from dataclasses import replace

from andon.methods.draem import Draem


class OftenSaved(Draem):
    """DRAEM with a checkpoint every 0.2 s."""

    name = "often-saved"

    def fit(self, images, *, seed=0, run=None):
        return super().fit(images, seed=seed, run=replace(run, checkpoint_seconds=0.2))
'''
PLAN = """
name: kills
datasets: [data]
methods:
  - thumbnail-nn
  - {method: patchcore, label: Patchcore, config: {backbone: resnet18, weights: random, transform: {size: [64, 64]}}}
  - method: often_saved.py:OftenSaved
    label: Trained
    preset: embedded
    config: {budget: BUDGET, transform: {size: [64, 64]}}
seeds: 2
"""
VICTIMS = {"main": "the run's own process", "worker": "an experiment's process", "server": "the fork server"}
VICTIMS["all"] = "all at once"
MARK = "ANDON_KILL_RUNS"
ORPHAN_SECONDS = 30.0
"""A fork server that has torch in its memory needs about one to end; one that is still importing it looks for its
parent only afterwards, which takes as long as the import: some ten on a busy machine. The longest wait is told."""
TRAINING_SECONDS = 1.0
MOST_KILLS_A_STORE = 4
BEGIN, END = "<!-- kills: begin -->\n", "<!-- kills: end -->"


@dataclass
class Findings:
    kills: Counter[str] = field(default_factory=Counter)
    in_training: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    longest_wait: float = 0.0
    codes: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    different: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def good(self) -> bool:
        return not (self.different or self.leftovers or self.orphans or self.words)


class Run:
    """``andon bench run``, with a mark in its environment that all its processes inherit."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.mark = uuid.uuid4().hex
        command = [sys.executable, "-m", "andon", "bench", "run", "plan.yaml", "-s", str(store), "--jobs", "2"]
        environment = os.environ | {MARK: self.mark, "PYTHONPATH": str(ROOT / "src")}
        self.log = folder / "run.log"
        with self.log.open("wb") as log:
            self.main = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def victims(self, kind: str) -> list[psutil.Process]:
        """What a kind of victim is at this moment; empty where there is none."""
        everything = self.processes()
        if kind == "all":
            return everything
        if kind == "main":
            return [p for p in everything if p.pid == self.main.pid]
        servers = [p for p in everything if "multiprocessing.forkserver" in _words(p) and p.ppid() == self.main.pid]
        if kind == "server":
            return servers
        workers = [p for p in everything if p.ppid() in {s.pid for s in servers}]
        return random.sample(workers, min(1, len(workers)))


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def in_training(store: Path) -> bool:
    """Whether an experiment keeps a checkpoint at this moment."""
    return any(store.glob("checkpoints/*/*.ckpt"))


def disturbed(folder: Path, store: Path, kinds: list[str], duration: float, findings: Findings) -> None:
    """Runs until it ends well, with a kill of each kind on the way."""
    todo = list(kinds)
    for _ in range(len(kinds) + 4):
        run = Run(folder, store)
        findings.runs += 1
        if todo:
            deadline = time.monotonic() + random.uniform(0.3, duration)
            if findings.kills.total() % 2:
                while run.main.poll() is None and not in_training(store):
                    time.sleep(0.02)
                deadline = time.monotonic() + random.uniform(0, TRAINING_SECONDS)
            while run.main.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            victims = run.victims(todo[0])
            while run.main.poll() is None and not victims:
                time.sleep(0.02)
                victims = run.victims(todo[0])
            if victims and run.main.poll() is None:
                kind = todo.pop(0)
                findings.kills[kind] += 1
                findings.in_training[kind] += in_training(store)
                for victim in victims:
                    try:
                        os.kill(victim.pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
        code = run.main.wait(timeout=600)
        findings.codes[str(code)] += 1
        ended = time.monotonic()
        while run.processes() and time.monotonic() < ended + ORPHAN_SECONDS:
            time.sleep(0.1)
        findings.longest_wait = max(findings.longest_wait, time.monotonic() - ended)
        for orphan in run.processes():
            findings.orphans.append(f"{orphan.pid}: {_words(orphan)[:80]}")
            orphan.kill()
        said = run.log.read_text(errors="replace")
        if code not in (0, 1, 2, -signal.SIGKILL) or "Traceback" in said or "Aborted" in said:
            findings.words.append(f"exit code {code}: {said[-300:]}")
        if code == 0:  # where nothing is left to do nothing is left to kill
            return
    findings.words.append("never ended well")


def figures(store: Path) -> dict[str, tuple[str, bytes]]:
    """By experiment: its evaluation, and the bytes of its scores and curves."""
    opened = Store(store)
    found = {}
    for record in opened.records():
        arrays = opened.arrays(record.id).to_npz()
        content = b"".join(name.encode() + np.ascontiguousarray(arrays[name]).tobytes() for name in sorted(arrays))
        found[record.id] = (record.evaluation.model_dump_json(), content)
    return found


def leftovers(store: Path) -> list[str]:
    names = [str(p.relative_to(store)) for p in store.rglob("*") if p.name.startswith(".") or p.suffix == ".tmp"]
    names += [str(p.relative_to(store)) for p in (store / "checkpoints").rglob("*")]
    return names + [name for name in ("scratch", "corrupt") if (store / name).exists()]


def kinds_left(findings: Findings, kills: int) -> list[str]:
    """What is still to be killed, in random order."""
    wanted = {kind: kills // 4 if kind == "all" else kills for kind in VICTIMS}
    left = [kind for kind, count in wanted.items() for _ in range(count - findings.kills[kind])]
    random.shuffle(left)
    return left


def table(findings: Findings, stores: int, kills: int, seed: int) -> str:
    """The result in Markdown."""
    rows = [f"| {words} | {findings.kills[k]} | {findings.in_training[k]} |" for k, words in VICTIMS.items()]
    rows.append(f"| together | {findings.kills.total()} | {findings.in_training.total()} |")
    missing = len(kinds_left(findings, kills))
    stopped = f"Stopped by --minutes with {missing} kills left to do. " if missing else ""
    codes = ", ".join(f"{code} × {count}" for code, count in sorted(findings.codes.items()))
    command = f"python tests/fuzz/kill_runs.py --kills {kills} --seed {seed}"
    return (
        f"`{command}`, {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}:\n\n"
        "| killed | times | while a training had a checkpoint |\n|---|---:|---:|\n" + "\n".join(rows) + "\n\n"
        f"{stopped}{stores} stores, {findings.runs} runs (exit codes {codes}). "
        f"Of {findings.compared} experiments compared, figures that differ: {len(findings.different)}; "
        f"scratch, checkpoints or half-written files left: {len(findings.leftovers)}; "
        f"orphans: {len(findings.orphans)} (longest wait for the last process: {findings.longest_wait:.1f} s); "
        f"tracebacks and wrong ends: {len(findings.words)}.\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each victim")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=float, default=0.05, help="length of the trained method's training")
    parser.add_argument("--minutes", type=float, default=30, help="begin no further store after so long")
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    options = parser.parse_args()
    random.seed(options.seed)
    findings, begun, number = Findings(), time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="andon-kills-") as name:
        folder = Path(name)
        write_tiny(folder / "data", categories=("bolt",), train=6)
        (folder / "often_saved.py").write_text(METHOD)
        (folder / "plan.yaml").write_text(PLAN.replace("BUDGET", str(options.budget)))
        started = time.monotonic()
        if Run(folder, folder / "undisturbed").main.wait() != 0:
            sys.stdout.write((folder / "run.log").read_text())
            return 1
        duration = time.monotonic() - started
        expected = figures(folder / "undisturbed")
        sys.stdout.write(f"undisturbed: {len(expected)} experiments in {duration:.1f} s\n")
        while (left := kinds_left(findings, options.kills)) and time.monotonic() - begun < 60 * options.minutes:
            number += 1
            store = folder / f"store-{number}"
            kinds = left[: random.randint(1, MOST_KILLS_A_STORE)]
            disturbed(folder, store, kinds, duration, findings)
            found = figures(store)
            findings.compared += len(expected)
            findings.different += [f"{store.name}: {i}" for i in expected if found.get(i) != expected[i]]
            findings.leftovers += [f"{store.name}: {name}" for name in leftovers(store)]
            sys.stdout.write(f"{store.name}: {', '.join(kinds)}; good so far: {findings.good()}\n")
            sys.stdout.flush()
    page = table(findings, number, options.kills, options.seed)
    sys.stdout.write(
        f"{page}\n{time.monotonic() - begun:.0f} s\n"
        f"different figures: {findings.different or 'none'}\nleft over: {findings.leftovers or 'none'}\n"
        f"orphans: {findings.orphans or 'none'}\ntracebacks and wrong ends: {findings.words or 'none'}\n"
    )
    if options.write is not None:
        text = options.write.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        options.write.write_text(f"{before}{BEGIN}{page}{END}{after}", encoding="utf-8")
    return 0 if findings.good() and not kinds_left(findings, options.kills) else 1


if __name__ == "__main__":
    sys.exit(main())
