"""The store: a folder that keeps every finished experiment, so that tables and report need nothing else.

    store.json                  format and version
    plans/<name>.json           each plan run here: its text, its experiments in order, where its data sets lay
    experiments/<id>/           record.json, arrays.npz, maps.npz?, model.safetensors?, log.txt, manifest.json
    failures/<id>.json          why an experiment has no result (removed once it has one, like its traceback)
    tracebacks/<id>.txt         the same for people
    galleries/<hash>/           small copies of a category's gallery images and masks
    corrupt/                    damaged entries, moved here by the next run; delete them when you have looked
    scratch/                    what is being written; emptied at the start of a run
    cache/                      images and features shared by experiments (see ``ArrayCache``); may be deleted

An experiment's folder is written aside, synced, then renamed: a process killed at any moment leaves a whole entry or
none. ``manifest.json`` holds size and BLAKE2b of the other files, so damage is noticed. Reading never changes the
store: a damaged entry is left out and named in ``Store.problems``; a run (``Store.repair``) moves it to ``corrupt/``
and does the experiment again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel

from andon.benchmark._files import StoreWriteError, publish_directory, write_atomically
from andon.benchmark._serial import (
    UNREADABLE,
    damaged,
    digest,
    digest_of_file,
    json_bytes,
    load_npz,
    npz_bytes,
    read_bytes,
    read_model,
)
from andon.benchmark.gallery import GalleryImage, GalleryMaps, gallery_problem, read_gallery, write_gallery
from andon.benchmark.record import ExperimentRecord, ExperimentSpec, Failure, Manifest, StoredFile, StoredPlan
from andon.core import StoreError
from andon.evaluation import EvaluationArrays

__all__ = ["Store"]

FORMAT_VERSION = 1
_RECORD, _ARRAYS, _MAPS, _MODEL, _LOG, _MANIFEST = (
    "record.json",
    "arrays.npz",
    "maps.npz",
    "model.safetensors",
    "log.txt",
    "manifest.json",
)
_MOST_BYTES = {_RECORD: 2**26, _LOG: 2**24, _ARRAYS: 2**30, _MAPS: 2**30, _MODEL: 2**36}
"""Of a file that is read; a model is never in memory as a whole."""
ModelT = TypeVar("ModelT", bound=BaseModel)


class Store:
    """A benchmark's results on disk.

    Args:
        root: its folder.
        create: make it if it is not there (the parent too); otherwise a missing store is an error.

    Raises:
        StoreError: no store there, not a store, or written by a newer Andon.

    Attributes:
        problems: one line for every damaged entry met while reading.
    """

    def __init__(self, root: str | Path, *, create: bool = False) -> None:
        self.root = Path(root)
        self.problems: list[str] = []
        self._plans: tuple[StoredPlan, ...] | None = None
        marker = self.root / "store.json"
        if not self.is_at(self.root):
            if not create:
                raise StoreError(f"{self.root}: no benchmark store there (`andon bench run PLAN` makes one)")
            self._begin(marker)
            return
        try:
            header = json.loads(read_bytes(marker))
            version = int(header["version"]) if header["format"] == "andon-store" else 0
        except UNREADABLE:
            version = 0
        if version < 1:
            raise StoreError(f"{marker}: is not the header of an Andon benchmark store")
        if version > FORMAT_VERSION:
            raise StoreError(
                f"{self.root}: written by a newer Andon (store version {version}, this one reads {FORMAT_VERSION}); "
                "update Andon"
            )

    @staticmethod
    def is_at(root: str | Path) -> bool:
        """Whether a store is in a folder; StoreError where none is and none can be made. Nothing is changed."""
        root = Path(root)
        if (root / "store.json").exists():
            return True
        if root.exists() and not root.is_dir():
            raise StoreError(f"{root}: is a file, not the folder of a benchmark store")
        # A first run killed before its marker was written leaves only the scratch folder and the lock.
        if root.is_dir() and {path.name for path in root.iterdir()} - {"scratch", "run.lock"}:
            raise StoreError(
                f"{root}: is not a benchmark store and not empty; name an empty or a new folder for the store"
            )
        return False

    def _begin(self, marker: Path) -> None:
        new = not self.root.exists()
        try:
            content = json.dumps({"format": "andon-store", "version": FORMAT_VERSION}).encode()
            write_atomically(marker, content, self.scratch)
        except StoreWriteError:
            shutil.rmtree(self.root if new else self.scratch, ignore_errors=True)
            raise

    # Folders

    @property
    def scratch(self) -> Path:
        """Where things are written before they are renamed; on the store's file system."""
        return self.root / "scratch"

    def checkpoints(self, experiment_id: str) -> Path:
        """Folder for the state of an experiment's training, from which a killed one goes on; its result removes it."""
        return self.root / "checkpoints" / experiment_id

    @staticmethod
    def cache_of(root: Path) -> Path:
        """The default folder for the cache of images and features of a store, which need not be there yet."""
        return root / "cache"

    def path(self, experiment_id: str) -> Path:
        """The folder of an experiment."""
        return self.root / "experiments" / experiment_id

    # Reading

    def plans(self) -> tuple[StoredPlan, ...]:
        """The plans that were run here, by name."""
        if self._plans is None:
            found = (self._readable(StoredPlan, p) for p in sorted((self.root / "plans").glob("*.json")))
            self._plans = tuple(p for p in found if p is not None)
        return self._plans

    def plan(self, name: str) -> StoredPlan | None:
        """A plan by name."""
        return next((p for p in self.plans() if p.name == name), None)

    def specs(self) -> list[ExperimentSpec]:
        """All experiments of the plans, done or not, in the plans' order, with the labels that ``records`` gives."""
        labels = self._labels()
        by_id = {spec.id: spec for plan in self.plans() for spec in plan.specs}
        return [by_id[i].model_copy(update={"label": label}) for i, label in labels.items()]

    def ids(self) -> tuple[str, ...]:
        """Ids of all experiments that have a result, sorted."""
        folder = self.root / "experiments"
        return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir())) if folder.is_dir() else ()

    def __contains__(self, experiment_id: object) -> bool:
        return isinstance(experiment_id, str) and (self.path(experiment_id) / _MANIFEST).is_file()

    def __len__(self) -> int:
        return len(self.ids())

    def records(self, *, everything: bool = False) -> list[ExperimentRecord]:
        """Results of the experiments in the store's plans, in the plans' order, with the plans' labels.

        Where two plans give one label to different configurations in one data set, the plan's name is added to it, so
        that a table never mixes them. Damaged records are left out and named in ``problems``.

        Args:
            everything: results that no plan asks for any more (a changed configuration, changed data), too; they come
                last, labelled "… (earlier)". A store without plans gives everything as it is.
        """
        labels = self._labels()
        have = set(self.ids())
        wanted = [i for i in labels if i in have]
        if everything or not self.plans():
            wanted += [i for i in self.ids() if i not in labels]
        records = []
        for experiment_id in wanted:
            try:
                record = self.record(experiment_id)
            except StoreError as error:
                self._note(str(error))
                continue
            label = labels.get(record.id, f"{record.spec.label} (earlier)" if self.plans() else record.spec.label)
            records.append(record.model_copy(update={"spec": record.spec.model_copy(update={"label": label})}))
        return records

    def record(self, experiment_id: str) -> ExperimentRecord:
        """One result; StoreError if there is none or it is damaged."""
        content = self._verified(experiment_id, _RECORD)
        try:
            record = ExperimentRecord.model_validate_json(content)
            if record.id != experiment_id or record.spec.id != experiment_id:
                raise ValueError(f"it is of experiment {record.spec.id}")
        except UNREADABLE as error:
            raise damaged(self.path(experiment_id) / _RECORD, error) from error
        return record

    def failures(self) -> list[Failure]:
        """Why experiments of the store's plans have no result, in the plans' order."""
        labels = self._labels()
        found: dict[str, Failure] = {}
        for path in sorted((self.root / "failures").glob("*.json")):
            failure = self._readable(Failure, path)
            if failure is not None and failure.id not in self and (failure.id in labels or not labels):
                label = labels.get(failure.id, failure.spec.label)
                found[failure.id] = failure.model_copy(
                    update={"spec": failure.spec.model_copy(update={"label": label})}
                )
        order = {experiment_id: rank for rank, experiment_id in enumerate(labels)}
        return sorted(found.values(), key=lambda f: order.get(f.id, len(order)))

    def arrays(self, experiment_id: str) -> EvaluationArrays:
        """Scores and curves of an experiment; StoreError if they are damaged."""
        path = self.path(experiment_id) / _ARRAYS
        content = self._verified(experiment_id, _ARRAYS)
        try:
            arrays = EvaluationArrays.from_npz(load_npz(content))
            count = len(arrays.sample_ids)
            if not (count == len(arrays.defect_types) == len(arrays.image_scores) and arrays.image_scores.ndim == 1):
                raise ValueError("its arrays differ in length")
        except UNREADABLE as error:
            raise damaged(path, error) from error
        return arrays

    def maps(self, experiment_id: str) -> GalleryMaps | None:
        """The anomaly maps that were kept of an experiment; None if none were. StoreError if they are damaged."""
        path = self.path(experiment_id) / _MAPS
        if _MAPS not in self._manifest(experiment_id):
            return None
        content = self._verified(experiment_id, _MAPS)
        try:
            return GalleryMaps.from_npz(load_npz(content))
        except UNREADABLE as error:
            raise damaged(path, error) from error

    def model_path(self, experiment_id: str) -> Path | None:
        """The learned state as a safetensors file; None if it was not kept."""
        return self.path(experiment_id) / _MODEL if _MODEL in self._manifest(experiment_id) else None

    def log(self, experiment_id: str) -> str:
        """The end of what the experiment printed; "" where it cannot be read."""
        try:
            return read_bytes(self.path(experiment_id) / _LOG, _MOST_BYTES[_LOG]).decode("utf-8", errors="replace")
        except OSError:
            return ""

    def gallery(self, dataset: str, category: str, data_fingerprint: str) -> list[GalleryImage]:
        """The gallery's images of a category: two of every defect type, then two good ones.

        Empty where there is none, or where it is damaged (named in ``problems``).
        """
        folder = self._gallery_path(dataset, category, data_fingerprint)
        if not folder.is_dir():
            return []
        try:
            return read_gallery(folder)
        except UNREADABLE as error:
            self._note(str(damaged(folder, error)))
            return []

    # Writing

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held by a run, so that two do not write at once; StoreError if another run holds it."""
        lock = FileLock(self.root / "run.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(
                f"{self.root}: another run is writing to this store; wait for it or name another store"
            ) from None
        except OSError as error:
            raise StoreWriteError(f"{self.root}: cannot be locked ({error.strerror or error})") from error
        try:
            yield
        finally:
            lock.release()

    def repair(self) -> list[str]:
        """Empties the scratch folder and moves damaged entries to ``corrupt/``. Call it with the lock held.

        Every file of every entry is compared with its manifest.

        Returns:
            One line for each entry that was moved.
        """
        self.empty_scratch()
        moved = []
        for experiment_id in self.ids():
            try:
                self.record(experiment_id)
                for name in self._manifest(experiment_id):
                    if name == _ARRAYS:
                        self.arrays(experiment_id)
                    elif name == _MAPS:
                        self.maps(experiment_id)
                    elif name != _RECORD:
                        self._check(experiment_id, name)
            except StoreError as error:
                moved.append(self._set_aside(self.path(experiment_id), str(error)))
        for path in sorted((self.root / "galleries").glob("*")):
            problem = gallery_problem(path)
            if problem is not None:
                moved.append(self._set_aside(path, problem))
        for folder, model in (("failures", Failure), ("plans", StoredPlan)):
            for path in sorted((self.root / folder).glob("*.json")):
                try:
                    read_model(model, path)
                except StoreError as error:
                    moved.append(self._set_aside(path, str(error)))
        self._plans = None
        return moved

    def empty_scratch(self) -> None:
        """Removes what was being written when a run ended, and checkpoints of finished experiments. Call it with the
        lock held."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        for folder in (self.root / "checkpoints").glob("*"):
            if folder.name in self:
                shutil.rmtree(folder, ignore_errors=True)

    def write_plan(self, plan: StoredPlan) -> None:
        """Keeps a plan; one of the same name is replaced."""
        write_atomically(self._plan_path(plan.name), json_bytes(plan), self.scratch)
        self._plans = None

    def write_experiment(
        self,
        record: ExperimentRecord,
        arrays: EvaluationArrays,
        *,
        maps: GalleryMaps | None = None,
        detector: bytes | None = None,
        log: str = "",
    ) -> None:
        """Keeps a result: whole or not at all. A result that is already there stays.

        Args:
            detector: ``Detector.to_bytes()``, where what was learned is to be kept.

        Raises:
            StoreWriteError: it cannot be written (full disk); nothing is left of it.
        """

        def fill(folder: Path) -> None:
            contents = {
                _RECORD: json_bytes(record),
                _ARRAYS: npz_bytes(arrays.to_npz()),
                _LOG: log.encode("utf-8", errors="replace"),
            }
            if maps is not None:
                contents[_MAPS] = npz_bytes(maps.to_npz())
            if detector is not None:
                contents[_MODEL] = detector
            files = {name: StoredFile(bytes=len(c), blake2b=digest(c)) for name, c in contents.items()}
            contents[_MANIFEST] = json_bytes(Manifest(id=record.id, files=files))
            for name, content in contents.items():
                (folder / name).write_bytes(content)

        publish_directory(self.path(record.id), fill, self.scratch)
        self.forget_failure(record.id)

    def write_failure(self, failure: Failure) -> None:
        """Keeps why an experiment has no result; an earlier reason is replaced."""
        self.forget_failure(failure.id)
        if failure.detail:
            detail = f"{failure.reason}\n\n{failure.detail}\n".encode("utf-8", errors="replace")
            write_atomically(self.traceback_path(failure.id), detail, self.scratch)
        write_atomically(self._failure_path(failure.id), json_bytes(failure), self.scratch)

    def traceback_path(self, experiment_id: str) -> Path:
        """File with a failed experiment's traceback, or the last lines that it printed; not there where it had none."""
        return self.root / "tracebacks" / f"{experiment_id}.txt"

    def forget_failure(self, experiment_id: str) -> None:
        """An experiment that failed has a result now, or is tried again."""
        for path in (self._failure_path(experiment_id), self.traceback_path(experiment_id)):
            path.unlink(missing_ok=True)

    def write_gallery(self, dataset: str, category: str, data_fingerprint: str, images: Sequence[GalleryImage]) -> None:
        """Keeps a category's gallery images, small (``shrink`` makes them); a gallery already there stays."""
        target = self._gallery_path(dataset, category, data_fingerprint)
        if (target / "gallery.json").is_file():
            return

        def fill(folder: Path) -> None:
            write_gallery(folder, dataset, category, images)

        publish_directory(target, fill, self.scratch)

    def has_gallery(self, dataset: str, category: str, data_fingerprint: str) -> bool:
        """Whether a category's gallery images are kept."""
        return (self._gallery_path(dataset, category, data_fingerprint) / "gallery.json").is_file()

    # Inside

    def _failure_path(self, experiment_id: str) -> Path:
        return self.root / "failures" / f"{experiment_id}.json"

    def _plan_path(self, name: str) -> Path:
        # A plan's name may hold anything: the file's name is the harmless part of it plus a hash of all of it.
        harmless = "".join(c if c.isalnum() and c.isascii() else "-" for c in name)[:40]
        return self.root / "plans" / f"{harmless}-{digest(name.encode())[:8]}.json"

    def _gallery_path(self, dataset: str, category: str, data_fingerprint: str) -> Path:
        key = "\0".join((dataset, category, data_fingerprint)).encode()
        return self.root / "galleries" / digest(key)[:16]

    def _labels(self) -> dict[str, str]:
        """Label by experiment id, in the plans' order; the plan's name is added where labels would mix results."""
        variants: dict[tuple[str, str], set[str]] = {}
        entries = [(plan, spec) for plan in self.plans() for spec in plan.specs]
        for _, spec in entries:
            variants.setdefault((spec.dataset, spec.label), set()).add(_variant(spec))
        labels: dict[str, str] = {}
        for plan, spec in entries:
            mixed = len(variants[spec.dataset, spec.label]) > 1
            labels.setdefault(spec.id, f"{spec.label} ({plan.name})" if mixed else spec.label)
        return labels

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def _readable(self, model: type[ModelT], path: Path) -> ModelT | None:
        try:
            return read_model(model, path)
        except StoreError as error:
            self._note(str(error))
            return None

    def _manifest(self, experiment_id: str) -> Mapping[str, StoredFile]:
        path = self.path(experiment_id) / _MANIFEST
        manifest = read_model(Manifest, path)
        if manifest.id != experiment_id or not {_RECORD, _ARRAYS} <= set(manifest.files):
            raise damaged(path, "it is not of this experiment")
        if not set(manifest.files) <= {_RECORD, _ARRAYS, _MAPS, _MODEL, _LOG}:
            raise damaged(path, "it names unknown files")
        return manifest.files

    def _verified(self, experiment_id: str, name: str) -> bytes:
        """A file's bytes, compared with the manifest."""
        folder = self.path(experiment_id)
        if not folder.is_dir():
            raise StoreError(f"{self.root}: has no experiment {experiment_id}")
        expected = self._manifest(experiment_id)[name]
        try:
            content = read_bytes(folder / name, _MOST_BYTES[name])
        except OSError as error:
            raise damaged(folder / name, error) from error
        if digest(content) != expected.blake2b:
            raise damaged(folder / name, f"{len(content)} bytes that are not those written ({expected.bytes} bytes)")
        return content

    def _check(self, experiment_id: str, name: str) -> None:
        """StoreError where a file is not that of the manifest; it is not kept in memory."""
        path, expected = self.path(experiment_id) / name, self._manifest(experiment_id)[name]
        try:
            found = digest_of_file(path, min(expected.bytes, _MOST_BYTES[name]))
        except OSError as error:
            raise damaged(path, error) from error
        if found != expected.blake2b:
            raise damaged(path, f"its bytes are not those written ({expected.bytes} bytes)")

    def _set_aside(self, path: Path, reason: str) -> str:
        corrupt = self.root / "corrupt"
        target, count = corrupt / path.name, 1
        try:
            corrupt.mkdir(exist_ok=True)
            while os.path.lexists(target):
                count += 1
                target = corrupt / f"{path.name}.{count}"
            path.rename(target)
        except OSError as error:
            raise StoreWriteError(f"{reason}; cannot be moved to {target} ({error.strerror or error})") from error
        return f"{reason}; moved to {target}, it will be done again"


def _variant(spec: ExperimentSpec) -> str:
    """What must be equal for two experiments to be averaged over seeds."""
    return spec.model_copy(update={"seed": 0, "category": "", "data_fingerprint": ""}).id
