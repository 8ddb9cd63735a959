"""What advice is worth: the regret of choosing by synthetic defects, by a few real ones, and of always the default.

    python benchmarks/bench_advise.py --data LINE [--images 40] [--keep FOLDER] [--write]

For every category the usual candidates are measured as ``andon advise`` does, on ``--images`` of its good training
images (drawn by the seed), and each detector scores the test images, which advice does not see (at
most ``--test`` good and as many defective ones, drawn). The regret of a choice is the AUROC on the test images of the
best candidate less that of the chosen one. Rules:

- default: Patchcore, whatever is measured;
- synthetic, highest: the highest AUROC on the synthetic defects;
- synthetic, beyond its error: the same, only where the paired interval of the margin is above 0; else the default;
- k real: the rule of ``andon advise``, with k defects drawn from the test set, which are then left out of the test; the
  mean over 50 draws.

``--keep`` keeps the scores, and takes those that are there: rules can be looked at again without measuring.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from andon.core import Category, no_progress
from andon.data import Images, load_dataset
from andon.evaluation import auroc
from andon.inspection.advising.advice import drawn_images, read_images
from andon.inspection.advising.candidates import DEFAULT, content_of, usual_candidates
from andon.inspection.advising.evidence import Evidence, carried, choose, comparisons, margins_over
from andon.inspection.advising.measuring import make_trial, measure
from andon.methods import Detector

RESULTS = Path(__file__).parent / "results" / "advise.md"
FEW = (8, 12, 20)
DRAWS = 50
SIDE = 1024


def scores_of(category: Category, n: int, n_test: int, seed: int) -> dict[str, Any]:
    """All scores of a category's candidates."""
    good, sizes = read_images(drawn_images(Images(category.train), n, seed, "good"), SIDE, no_progress, "")
    test = {}
    for bad in (False, True):
        drawn = drawn_images(Images(category.select("test", bad)), n_test, seed, f"test {bad}")
        test[bad] = read_images(drawn, SIDE, no_progress, "")[0]
    content = content_of(good)
    trial = make_trial(good, test[True], seed)
    found: dict[str, Any] = {
        "n": len(good),
        "base": trial.base.tolist(),
        "kinds": [defect.kind for defect in trial.synthetic],
        "candidates": {},
    }
    for candidate in usual_candidates(sizes[0], content):
        on_test: dict[bool, list[float]] = {}

        def seen(detector: Detector, _: Images, on_test: dict[bool, list[float]] = on_test) -> None:
            for bad, images in test.items():
                on_test[bad] = detector.predict(images).image_scores.tolist()

        with tempfile.TemporaryDirectory() as folder:
            measured = measure(candidate, content, trial, Path(folder), seed=seed, progress=no_progress, seen=seen)
        assert measured.real is not None
        found["candidates"][candidate.label] = {
            "good": measured.good.tolist(),
            "synthetic": measured.synthetic.tolist(),
            "real": measured.real.tolist(),
            "test_good": on_test[False],
            "test_defective": on_test[True],
            "seconds": measured.seconds,
        }
        print(f"{category.name} {candidate.label}: {measured.seconds:.1f} s", flush=True)
    return found


def on_test(scores: dict[str, Any], left_out: set[int] = frozenset()) -> float:  # type: ignore[assignment]
    """AUROC of the whole detector on the test images, without some of the defects."""
    bad = [score for i, score in enumerate(scores["test_defective"]) if i not in left_out]
    value = auroc([*scores["test_good"], *bad], [0] * len(scores["test_good"]) + [1] * len(bad))
    assert value is not None
    return value


def regret(candidates: dict[str, Any], label: str, left_out: set[int] = frozenset()) -> float:  # type: ignore[assignment]
    """How far a candidate is behind the best."""
    return max(on_test(c, left_out) for c in candidates.values()) - on_test(candidates[label], left_out)


def rules(found: dict[str, Any], seed: int) -> dict[str, tuple[str, float, float]]:
    """Choice, regret, and the default's regret on the same test images, by rule."""
    candidates, base = found["candidates"], np.asarray(found["base"])
    default = DEFAULT.label
    synthetic = {k: comparisons(c["good"], c["synthetic"], base) for k, c in candidates.items()}
    evidence = Evidence("synthetic", found["n"], len(base), synthetic)
    highest = max(synthetic, key=lambda label: synthetic[label].auroc)
    beyond = carried(margins_over(evidence, default, seed=seed), default)
    own = regret(candidates, default)
    out = {"default": (default, own, own)}
    out["synthetic, highest"] = highest, regret(candidates, highest), own
    out["synthetic, beyond its error"] = beyond, regret(candidates, beyond), own
    n_defective = len(candidates[default]["test_defective"])
    for k in FEW:
        chosen, regrets, defaults = [], [], []
        for draw in range(DRAWS):
            picked = np.random.default_rng([seed, k, draw]).choice(n_defective, k, replace=False)
            real = {c: comparisons(v["good"], np.asarray(v["real"])[:, picked]) for c, v in candidates.items()}
            label = choose(Evidence("real", found["n"], k, real), default, seed=seed).label
            chosen.append(label)
            regrets.append(regret(candidates, label, set(picked.tolist())))
            defaults.append(regret(candidates, default, set(picked.tolist())))
        others = sum(label != default for label in chosen)
        words = f"another in {others} of {DRAWS}"
        out[f"{k} real"] = words, float(np.mean(regrets)), float(np.mean(defaults))
    return out


def tables(everything: dict[str, dict[str, Any]], seed: int) -> list[str]:
    """The report's tables."""
    labels = list(dict.fromkeys(label for found in everything.values() for label in found["candidates"]))
    lines = ["## AUROC on the test images / on the synthetic defects", ""]
    lines += ["| category | " + " | ".join(labels) + " | rank correlation |", "|---|" + "---:|" * (len(labels) + 1)]
    for name, found in everything.items():
        test, pasted, cells = [], [], []
        for label in labels:
            if label not in found["candidates"]:
                cells.append("–")
                continue
            scores = found["candidates"][label]
            test.append(on_test(scores))
            pasted.append(comparisons(scores["good"], scores["synthetic"]).auroc)
            cells.append(f"{test[-1]:.3f} / {pasted[-1]:.3f}")
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {stats.spearmanr(test, pasted).statistic:+.2f} |")
    every = {name: rules(found, seed) for name, found in everything.items()}
    names = list(next(iter(every.values())))
    lines += ["", "## Regret", "", "| category | rule | choice | regret | the default's |", "|---|---|---|---:|---:|"]
    for category, by_rule in every.items():
        for rule, (choice, value, own) in by_rule.items():
            lines.append(f"| {category} | {rule} | {choice} | {value:.3f} | {own:.3f} |")
    lines += ["", "## Mean over the categories", "", "| rule | mean regret | largest | the default's mean |"]
    lines += ["|---|---:|---:|---:|"]
    for rule in names:
        values, owns = ([by_rule[rule][i] for by_rule in every.values()] for i in (1, 2))
        lines.append(f"| {rule} | {np.mean(values):.3f} | {max(values):.3f} | {np.mean(owns):.3f} |")
    return [*lines, "", *by_kind(everything, labels)]


def by_kind(everything: dict[str, dict[str, Any]], labels: list[str]) -> list[str]:
    """AUROC on synthetic defects by kind, the mean over the categories."""
    kinds = sorted({kind for found in everything.values() for kind in found["kinds"]})
    lines = ["## Synthetic defects by kind, mean AUROC over the categories", ""]
    lines += ["| kind | " + " | ".join(labels) + " |", "|---|" + "---:|" * len(labels)]
    for kind in kinds:
        cells = []
        for label in labels:
            values = []
            for found in everything.values():
                scores = found["candidates"].get(label)
                chosen = [j for j, k in enumerate(found["kinds"]) if k == kind]
                if scores is not None and chosen:
                    values.append(comparisons(scores["good"], np.asarray(scores["synthetic"])[chosen]).auroc)
            cells.append(f"{np.mean(values):.3f}" if values else "–")
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", type=Path, required=True)
    parser.add_argument("--category", action="append")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--test", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    load, begun, everything = os.getloadavg()[0], time.perf_counter(), {}
    for data in options.data:
        for category in load_dataset(data):
            if options.category and category.name not in options.category:
                continue
            kept = None if options.keep is None else options.keep / f"{category.name}-{options.seed}.json"
            if kept is not None and kept.exists():
                everything[category.name] = json.loads(kept.read_text())
                continue
            everything[category.name] = found = scores_of(category, options.images, options.test, options.seed)
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(found))
    measuring = sum(c["seconds"] for found in everything.values() for c in found["candidates"].values())
    lines = [
        "# What advice is worth",
        "",
        f"{datetime.date.today()}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python "
        f"{platform.python_version()}, load average {load:.1f} on {os.cpu_count()} cores, candidates measured in "
        f"{measuring / 60:.0f} minutes. `python benchmarks/bench_advise.py --images {options.images} --seed "
        f"{options.seed} …`",
        "",
        *tables(everything, options.seed),
    ]
    print("\n".join(lines))
    print(f"{time.perf_counter() - begun:.0f} s")
    if options.write:
        RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
