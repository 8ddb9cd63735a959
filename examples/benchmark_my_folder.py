"""Which method is best on my images? Two methods and the trivial floor, side by side, on a folder of your own.

    python examples/benchmark_my_folder.py IMAGES RUNS

``IMAGES`` has a folder ``good`` and one folder a kind of defect (or is in AutoVI's, MVTec AD's or MVTec LOCO's layout).
Results go to ``RUNS``; started again, it does only what is left. Nothing is downloaded: the methods stand on the
features that come with Andon (preset "embedded").
"""

from __future__ import annotations

import sys
from pathlib import Path

from andon.benchmark import Store, make_plan, run_plan
from andon.report import make_tables, write_report
from andon.report.renderers import to_text

METHODS = ("thumbnail-nn", "padim", "patchcore")
PRESET: str | None = "embedded"


def main(images: Path, runs: Path) -> None:
    plan = make_plan([images], METHODS, preset=PRESET)
    run_plan(plan, runs, on_event=lambda event: print(event.message))
    store = Store(runs)
    for table in make_tables(store):
        print(to_text(table))
    print(f"the whole report: {write_report(store, runs / 'report.html')}")


if __name__ == "__main__":  # experiments are processes of their own, which import this file
    main(Path(sys.argv[1]), Path(sys.argv[2]))
