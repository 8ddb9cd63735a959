"""AUsPRO of a full-size test set: CPU time and peak memory, beside plain and official computations.

    python benchmarks/bench_auspro.py [--case DIR] [--official DIR] [--write]

The case is ``make_parity_case.py --preset tank_full`` (413 maps of 1000×750, 318 good and 95 defective images); it is
made if DIR does not hold it. Every variant runs in its own process on one thread. CPU seconds are the evaluation's own
(reading files included, imports not); memory is the process's peak, everything included.

    andon, 8 bit        ``evaluate_maps`` on the PNG maps
    andon, float32      ``evaluate_maps`` on NPY maps: the same with seeded noise below a grey level: hardly any ties
    ... AVX2 sort       the same with NumPy's AVX-512 code switched off (on AMD Zen 4 its sort is slow)
    plain, 8 bit/float  exact too: all pixels in memory, concatenated and sorted
    official            a checkout of phcarval/autovi_evaluation_code (8-bit maps; samples thresholds)
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve()
GENERATOR = HERE.parents[2] / "shared" / "parity" / "make_parity_case.py"
LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)
CATEGORY = "tank_screw"


def prepare(case: Path) -> None:
    """Makes the case, blank images for it (only their size matters), and the float maps."""
    import numpy as np
    from PIL import Image

    if not (case / "manifest.json").exists():
        command = [sys.executable, str(GENERATOR), "--preset", "tank_full", "--out", str(case)]
        subprocess.run(command, check=True)
    rng = np.random.default_rng(0)
    for path in sorted((case / "maps" / CATEGORY).glob("*/*.png")):
        image = case / "dataset" / CATEGORY / "test" / path.parent.name / path.name
        floats = case / "maps_float" / CATEGORY / path.parent.name / f"{path.stem}.npy"
        if image.exists() and floats.exists():
            continue
        grey = np.asarray(Image.open(path))
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros_like(grey)).save(image)
        floats.parent.mkdir(parents=True, exist_ok=True)
        np.save(floats, ((grey + rng.random(grey.shape)) / 256).astype(np.float32))


def run_andon(case: Path, maps: str) -> tuple[float, dict[float, float]]:
    from andon.benchmark.maps import evaluate_maps
    from andon.data import load_dataset

    start = time.process_time()
    report = evaluate_maps(case / maps, load_dataset(case / "dataset"), fpr_limits=LIMITS)
    seconds = time.process_time() - start
    return seconds, report.results[CATEGORY].evaluation.localisation.auspro


def run_plain(case: Path, maps: str) -> tuple[float, dict[float, float]]:
    """Exact and unsophisticated: everything in memory, one sort of all scores, one curve."""
    import numpy as np
    from PIL import Image

    from andon.data import load_dataset

    start = time.process_time()
    scores, positive, channels = [], [], []
    for sample in load_dataset(case / "dataset")[CATEGORY].test:
        path = next((case / maps / CATEGORY / sample.defect_type).glob(f"{sample.path.stem}.*"))
        values = np.load(path) if path.suffix == ".npy" else np.asarray(Image.open(path))
        truth = sample.ground_truth()
        scores.append(values.ravel())
        positive.append(truth.union().ravel())
        channels += [(np.sort(values[c.mask]), c.saturation) for c in truth.channels]
    everything, is_positive = np.concatenate(scores), np.concatenate(positive)
    negatives = np.sort(everything[~is_positive])
    # The curve can only turn at scores of channels' pixels and before them.
    levels = np.unique(everything[is_positive])[::-1]
    above = (len(negatives) - np.searchsorted(negatives, levels, side="right")) / len(negatives)
    at_least = (len(negatives) - np.searchsorted(negatives, levels, side="left")) / len(negatives)
    spro = np.zeros(len(levels))
    for own, saturation in channels:
        spro += np.minimum((len(own) - np.searchsorted(own, levels)) / saturation, 1)
    spro /= len(channels)
    x = np.concatenate([[0], np.stack([above, at_least], 1).ravel(), [1]])
    y = np.concatenate([[0], np.stack([np.append(0, spro[:-1]), spro], 1).ravel(), [spro[-1]]])
    out = {}
    for limit in LIMITS:
        k = int(np.searchsorted(x, limit, side="left"))
        end = y[k - 1] + (y[k] - y[k - 1]) * (limit - x[k - 1]) / (x[k] - x[k - 1])
        out[limit] = float(np.trapezoid(np.append(y[:k], end), np.append(x[:k], limit)) / limit)
    return time.process_time() - start, out


def run_official(case: Path, checkout: Path) -> tuple[float, dict[float, float]]:
    sys.path.insert(0, str(checkout))
    os.chdir(checkout)
    import evaluate_experiment
    import src.metrics

    evaluate_experiment.tqdm = src.metrics.tqdm = lambda items, **_: items  # no progress bars
    result = case / "official"
    sys.argv = ["evaluate_experiment.py", "--object_name", CATEGORY, "--dataset_base_dir", str(case / "dataset")]
    sys.argv += ["--anomaly_maps_dir", str(case / "maps" / CATEGORY), "--output_dir", str(result), "--niceness", "0"]
    start = time.process_time()
    evaluate_experiment.main()
    seconds = time.process_time() - start
    values = json.loads((result / "metrics.json").read_text())["localization"]["auc_spro"]
    return seconds, {float(k): v for k, v in values.items()}


VARIANTS = {
    "andon, 8 bit": lambda case, _: run_andon(case, "maps"),
    "plain, 8 bit": lambda case, _: run_plain(case, "maps"),
    "official, 8 bit": run_official,
    "andon, float32": lambda case, _: run_andon(case, "maps_float"),
    "andon, float32, AVX2 sort": lambda case, _: run_andon(case, "maps_float"),
    "plain, float32": lambda case, _: run_plain(case, "maps_float"),
}


def child(variant: str, case: Path, official: Path | None) -> None:
    seconds, values = VARIANTS[variant](case, official)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print("RESULT " + json.dumps({"seconds": seconds, "peak": peak, "values": {str(k): v for k, v in values.items()}}))


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def avx512_features() -> str:
    """The AVX-512 code paths that this NumPy would use on this machine."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    return " ".join(f for f in __cpu_dispatch__ if ("AVX512" in f or f == "X86_V4") and __cpu_features__.get(f))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=Path, default=Path("/tmp/andon-bench-auspro"))
    parser.add_argument("--official", type=Path, help="checkout of the official evaluator (needs tqdm)")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/auspro.md")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.case.resolve(), options.official and options.official.resolve())
        return
    prepare(options.case)
    results = {}
    for variant in VARIANTS:
        if variant.startswith("official") and options.official is None:
            continue
        command = [sys.executable, str(HERE), "--child", variant, "--case", str(options.case)]
        command += ["--official", str(options.official)] if options.official else []
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        if "AVX2" in variant:
            one_thread["NPY_DISABLE_CPU_FEATURES"] = avx512_features()
            if not one_thread["NPY_DISABLE_CPU_FEATURES"]:
                continue
        done = subprocess.run(command, env=os.environ | one_thread, stdout=subprocess.PIPE, text=True, check=True)
        results[variant] = json.loads(next(s for s in done.stdout.splitlines() if s.startswith("RESULT "))[7:])
        print(variant, results[variant], flush=True)

    import numpy as np
    import PIL

    lines = [
        "# AUsPRO of a full-size test set",
        "",
        f"{datetime.date.today()}, {cpu_name()}, one thread; Python {platform.python_version()}, "
        f"NumPy {np.__version__}, Pillow {PIL.__version__}. `python benchmarks/bench_auspro.py"
        + (" --official DIR`" if options.official else "`"),
        "",
        "413 maps of 1000×750 (318 good images, 95 defective): 310 million pixels. CPU seconds include reading all",
        "maps and masks; memory is the process's peak. Andon also gives AUPRO, pixel AUROC and AP, and AUsPRO by",
        "defect type in that time; the others give AUsPRO only. The float maps are 1.2 GB of NPY files. (AVX2 sort:",
        "with `NPY_DISABLE_CPU_FEATURES` set to NumPy's AVX-512 paths, whose sort is slow on AMD Zen 4.)",
        "",
        "| computation | CPU s | Andon is faster by | peak memory, GB | AUsPRO at 0.05 | differs from Andon's by |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for variant, r in results.items():
        ours = results["andon, float32" if "float" in variant else "andon, 8 bit"]
        difference = max(abs(r["values"][k] - v) for k, v in ours["values"].items())
        ratio = "" if "andon" in variant else f"{r['seconds'] / ours['seconds']:.1f}×"
        shown = "" if "andon" in variant else f"{difference:.1e}"
        lines.append(
            f"| {variant} | {r['seconds']:.1f} | {ratio} | {r['peak']:.2f} | {r['values']['0.05']:.6f} | {shown} |"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        (HERE.parent / "results" / "auspro.md").write_text(text)


if __name__ == "__main__":
    main()
