"""Does the detector of every method survive export, and does ONNX Runtime say the same? (needs ``andon[bench]``)

Each method learns twelve images of a rendered task on its ``designed`` preset, shortened where it is trained, then
``torch.export`` and ``torch.onnx.export`` (dynamo) take it with a batch of one. Differences are the largest over the
test images, relative to the largest value. ``--write`` renews results/export.md.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from andon import create_method, load_dataset
from andon.methods import Detector, method_names
from andon.synthetic import Counts, generate

RESULT = Path(__file__).parent / "results" / "export.md"
BUDGETS = {"cflow": 0.05, "draem": 0.02, "dsr": 0.05, "efficientad": 0.01}


def worst(found: list[np.ndarray[Any, Any]], expected: list[np.ndarray[Any, Any]]) -> float:
    a, b = np.concatenate(found), np.concatenate(expected)
    return float(np.abs(a - b).max() / np.abs(b).max())


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"


def exported(detector: Detector, batches: list[torch.Tensor]) -> str:
    program = torch.export.export(detector, (batches[0],)).module()
    pairs = [(program(b), detector(b)) for b in batches]
    return f"works, scores differ by {worst([f[0].numpy() for f, _ in pairs], [e[0].numpy() for _, e in pairs]):.0e}"


def to_onnx(detector: Detector, batches: list[torch.Tensor], folder: Path) -> tuple[str, str, str]:
    import onnxruntime

    path = folder / "detector.onnx"
    torch.onnx.export(detector, (batches[0],), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    found = [session.run(None, {name: b.numpy()}) for b in batches]
    expected = [tuple(t.numpy() for t in detector(b)) for b in batches]
    scores, maps = (worst([f[i] for f in found], [e[i] for e in expected]) for i in (0, 1))
    return "works", f"{scores:.0e}", f"{maps:.0e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    warnings.filterwarnings("ignore")
    lines = [
        "# Export of every method's detector",
        "",
        f"torch {torch.__version__}, batch of one, `designed` presets; differences relative to the largest value.",
        "",
        "| method | torch.export | ONNX (dynamo) | scores in ONNX Runtime | maps |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as temporary, torch.inference_mode(False), torch.no_grad():
        folder = Path(temporary)
        counts = Counts(train=12, good=2, defective=2)
        generate(folder / "line", tasks=["pipe_staple"], counts=counts, jobs=1)
        category = load_dataset(folder / "line")["pipe_staple"]
        for name in method_names():
            options = {} if name == "thumbnail-nn" else {"preset": "designed"}
            budget = {"budget": BUDGETS[name]} if name in BUDGETS else {}
            with torch.enable_grad():
                detector = create_method(name, **options, **budget).fit(category, seed=0)
            resized = [detector.transform.resize(sample.image()) for sample in category.test]
            batches = [detector.transform.normalise(image[None]) for image in resized]
            try:
                first = exported(detector, batches)
            except Exception as error:
                first = first_line(error)
            try:
                onnx = to_onnx(detector, batches, folder)
            except Exception as error:
                onnx = (first_line(error), "–", "–")
            lines.append(f"| {name} | {first} | {' | '.join(onnx)} |")
            print(lines[-1], flush=True)
    if write:
        RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
