"""The store: a folder that keeps every finished experiment, so that tables and report need nothing else.

    store.json                  format and version
    plans/<name>.json           each plan run here: its text, its experiments in order, where its data sets lay
    experiments/<id>/           record.json, arrays.npz, maps.npz?, model.safetensors?, log.txt, manifest.json
    failures/<id>.json          why an experiment has no result (removed once it has one)
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

import hashlib
import io
import json
import math
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from andon.benchmark._files import StoreError, publish_directory, write_atomically
from andon.benchmark.record import ExperimentRecord, ExperimentSpec, Failure
from andon.core import AndonError, BoolArray, FloatArray, ImageArray, Region, StoreError
from andon.evaluation.result import EvaluationArrays

if TYPE_CHECKING:
    import torch

__all__ = ["GalleryImage", "GalleryMaps", "Store", "StoreError", "StoredDataset", "StoredPlan", "shrink"]

FORMAT_VERSION = 1
GALLERY_SIDE = 512
"""Longest side of the gallery's images, pixels."""

_RECORD, _ARRAYS, _MAPS, _MODEL, _LOG, _MANIFEST = (
    "record.json",
    "arrays.npz",
    "maps.npz",
    "model.safetensors",
    "log.txt",
    "manifest.json",
)
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    SyntaxError,  # Pillow's for broken PNG
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
)
ModelT = TypeVar("ModelT", bound=BaseModel)


class StoredDataset(BaseModel):
    """Where a data set of a plan lay when the plan was last run (a hint for reloading: it may have moved)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    path: str
    layout: str
    categories: tuple[str, ...]


class StoredPlan(BaseModel):
    """A plan as it was last run in this store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    source: str
    """The YAML text."""
    content: dict[str, Any]
    """What it was read as, with the data sets' absolute paths: the store can go on without the file."""
    base: str
    """The folder that the paths of its methods start from."""
    seeds: tuple[int, ...]
    datasets: tuple[StoredDataset, ...]
    specs: tuple[ExperimentSpec, ...]
    """All its experiments, in the order of the plan."""


@dataclass(frozen=True)
class GalleryMaps:
    """Raw anomaly maps of some test images.

    Attributes:
        sample_ids: ``[K]``.
        maps: K float32 ``[h, w]``, raw, higher = more anomalous, at the method's own resolution.
        regions: the part of the image that each map covers.
    """

    sample_ids: tuple[str, ...]
    maps: tuple[FloatArray, ...]
    regions: tuple[Region, ...]

    def __post_init__(self) -> None:
        if not len(self.sample_ids) == len(self.maps) == len(self.regions):
            raise ValueError(f"{len(self.sample_ids)} samples, {len(self.maps)} maps, {len(self.regions)} regions")

    def __len__(self) -> int:
        return len(self.maps)

    def get(self, sample_id: str) -> tuple[FloatArray, Region] | None:
        """Map and region of a sample; None if it was not kept."""
        try:
            index = self.sample_ids.index(sample_id)
        except ValueError:
            return None
        return self.maps[index], self.regions[index]

    def to_npz(self) -> dict[str, npt.NDArray[Any]]:
        """As plain arrays (no pickles)."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "sample_ids": np.asarray(self.sample_ids, dtype=np.str_),
            "regions": np.asarray([(r.top, r.left, r.bottom, r.right) for r in self.regions]).reshape(-1, 4),
        }
        return arrays | {f"map_{i}": m for i, m in enumerate(self.maps)}

    @classmethod
    def from_npz(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> GalleryMaps:
        """The inverse of ``to_npz``; ValueError or KeyError for anything else."""
        ids = tuple(str(x) for x in arrays["sample_ids"])
        maps = tuple(arrays[f"map_{i}"] for i in range(len(ids)))
        for index, values in enumerate(maps):
            if values.ndim != 2 or values.dtype != np.float32:
                raise ValueError(f"map {index} is {values.dtype} {list(values.shape)}, not float32 [h, w]")
        return cls(ids, maps, tuple(Region(*(float(x) for x in row)) for row in arrays["regions"]))


@dataclass(frozen=True)
class GalleryImage:
    """A test image of the gallery, made small.

    Attributes:
        sample_id: as in ``EvaluationArrays.sample_ids``.
        defect_type: "good" for a good one.
        size: (height, width) of the original.
        image: RGB uint8 ``[h, w, 3]``, longest side at most 512.
        mask: union of the ground-truth channels, bool ``[h, w]``; None for a defective image without ground truth.
    """

    sample_id: str
    defect_type: str
    size: tuple[int, int]
    image: ImageArray = field(repr=False)
    mask: BoolArray | None = field(repr=False)


class Store:
    """A benchmark's results on disk.

    Args:
        root: its folder.
        create: make it if it is not there (the parent too); otherwise a missing store is an error.

    Raises:
        AndonError: no store there, not a store, or written by a newer Andon.

    Attributes:
        problems: one line for every damaged entry met while reading.
    """

    def __init__(self, root: str | Path, *, create: bool = False) -> None:
        self.root = Path(root)
        self.problems: list[str] = []
        self._plans: tuple[StoredPlan, ...] | None = None
        marker = self.root / "store.json"
        if not marker.exists():
            if self.root.exists() and not self.root.is_dir():
                raise AndonError(f"{self.root}: is a file, not the folder of a benchmark store")
            # A first run killed before its marker was written leaves only the scratch folder and the lock.
            strangers = [p.name for p in self.root.iterdir()] if self.root.is_dir() else []
            if not create:
                raise AndonError(f"{self.root}: no benchmark store there (`andon bench run PLAN` makes one)")
            if set(strangers) - {"scratch", "run.lock"}:
                raise AndonError(
                    f"{self.root}: is not a benchmark store and not empty; name an empty or a new folder for the store"
                )
            content = json.dumps({"format": "andon-store", "version": FORMAT_VERSION}).encode()
            write_atomically(marker, content, self.scratch)
            return
        try:
            header = json.loads(marker.read_bytes())
            version = int(header["version"]) if header["format"] == "andon-store" else 0
        except (OSError, ValueError, KeyError, TypeError):
            version = 0
        if version < 1:
            raise AndonError(f"{marker}: is not the header of an Andon benchmark store")
        if version > FORMAT_VERSION:
            raise AndonError(
                f"{self.root}: written by a newer Andon (store version {version}, this one reads {FORMAT_VERSION}); "
                "update Andon"
            )

    # Folders

    @property
    def scratch(self) -> Path:
        """Where things are written before they are renamed; on the store's file system."""
        return self.root / "scratch"

    def checkpoints(self, experiment_id: str) -> Path:
        """Folder for the state of an experiment's training, from which a killed one goes on; its result removes it."""
        return self.root / "checkpoints" / experiment_id

    @property
    def cache_root(self) -> Path:
        """The default folder for the cache of images and features."""
        return self.root / "cache"

    def path(self, experiment_id: str) -> Path:
        """The folder of an experiment."""
        return self.root / "experiments" / experiment_id

    # Reading

    def plans(self) -> tuple[StoredPlan, ...]:
        """The plans that were run here, by name."""
        if self._plans is None:
            found = (self._read_model(StoredPlan, p) for p in sorted((self.root / "plans").glob("*.json")))
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
            except AndonError as error:
                self._note(str(error))
                continue
            label = labels.get(record.id, f"{record.spec.label} (earlier)" if self.plans() else record.spec.label)
            records.append(record.model_copy(update={"spec": record.spec.model_copy(update={"label": label})}))
        return records

    def record(self, experiment_id: str) -> ExperimentRecord:
        """One result; AndonError if there is none or it is damaged."""
        content = self._verified(experiment_id, _RECORD)
        try:
            record = ExperimentRecord.model_validate_json(content)
        except ValidationError as error:
            raise _damaged(self.path(experiment_id) / _RECORD, _first(error)) from error
        if record.id != experiment_id or record.spec.id != experiment_id:
            raise _damaged(self.path(experiment_id) / _RECORD, f"it is of experiment {record.spec.id}")
        return record

    def failures(self) -> list[Failure]:
        """Why experiments of the store's plans have no result, in the plans' order."""
        labels = self._labels()
        found: dict[str, Failure] = {}
        for path in sorted((self.root / "failures").glob("*.json")):
            failure = self._read_model(Failure, path)
            if failure is not None and failure.id not in self and (failure.id in labels or not labels):
                label = labels.get(failure.id, failure.spec.label)
                found[failure.id] = failure.model_copy(
                    update={"spec": failure.spec.model_copy(update={"label": label})}
                )
        order = {experiment_id: rank for rank, experiment_id in enumerate(labels)}
        return sorted(found.values(), key=lambda f: order.get(f.id, len(order)))

    def arrays(self, experiment_id: str) -> EvaluationArrays:
        """Scores and curves of an experiment; AndonError if they are damaged."""
        path = self.path(experiment_id) / _ARRAYS
        content = self._verified(experiment_id, _ARRAYS)
        try:
            arrays = EvaluationArrays.from_npz(_load_npz(content))
            count = len(arrays.sample_ids)
            if not (count == len(arrays.defect_types) == len(arrays.image_scores) and arrays.image_scores.ndim == 1):
                raise ValueError("its arrays differ in length")
        except _UNREADABLE as error:
            raise _damaged(path, str(error)) from error
        return arrays

    def maps(self, experiment_id: str) -> GalleryMaps | None:
        """The anomaly maps that were kept of an experiment; None if none were. AndonError if they are damaged."""
        path = self.path(experiment_id) / _MAPS
        if _MAPS not in self._manifest(experiment_id):
            return None
        content = self._verified(experiment_id, _MAPS)
        try:
            return GalleryMaps.from_npz(_load_npz(content))
        except _UNREADABLE as error:
            raise _damaged(path, str(error)) from error

    def model_path(self, experiment_id: str) -> Path | None:
        """The learned state as a safetensors file; None if it was not kept."""
        return self.path(experiment_id) / _MODEL if _MODEL in self._manifest(experiment_id) else None

    def log(self, experiment_id: str) -> str:
        """What the experiment printed."""
        path = self.path(experiment_id) / _LOG
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    def gallery(self, dataset: str, category: str, data_fingerprint: str) -> list[GalleryImage]:
        """The gallery's images of a category: two of every defect type, then two good ones.

        Empty where there is none, or where it is damaged (named in ``problems``).
        """
        folder = self._gallery_path(dataset, category, data_fingerprint)
        if not folder.is_dir():
            return []
        try:
            return _read_gallery(folder)
        except _UNREADABLE as error:
            self._note(str(_damaged(folder, str(error))))
            return []

    # Writing

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held by a run, so that two do not write at once; AndonError if another run holds it."""
        lock = FileLock(self.root / "run.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise AndonError(
                f"{self.root}: another run is writing to this store; wait for it or name another store"
            ) from None
        except OSError as error:
            raise StoreError(f"{self.root}: cannot be locked ({error.strerror or error})") from error
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
                        self._verified(experiment_id, name)
            except AndonError as error:
                moved.append(self._set_aside(self.path(experiment_id), str(error)))
        for path in sorted((self.root / "galleries").glob("*")):
            problem = _gallery_problem(path)
            if problem is not None:
                moved.append(self._set_aside(path, problem))
        for folder, model in (("failures", Failure), ("plans", StoredPlan)):
            for path in sorted((self.root / folder).glob("*.json")):
                problem = _problem(model, path)
                if problem is not None:
                    moved.append(self._set_aside(path, problem))
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
        write_atomically(self._plan_path(plan.name), _json_bytes(plan), self.scratch)
        self._plans = None

    def write_experiment(
        self,
        record: ExperimentRecord,
        arrays: EvaluationArrays,
        *,
        maps: GalleryMaps | None = None,
        model: Mapping[str, torch.Tensor] | None = None,
        log: str = "",
    ) -> None:
        """Keeps a result: whole or not at all. A result that is already there stays.

        Raises:
            StoreError: it cannot be written (full disk); nothing is left of it.
        """

        def fill(folder: Path) -> None:
            contents = {
                _RECORD: _json_bytes(record),
                _ARRAYS: _npz_bytes(arrays.to_npz()),
                _LOG: log.encode("utf-8", errors="replace"),
            }
            if maps is not None:
                contents[_MAPS] = _npz_bytes(maps.to_npz())
            if model is not None:
                from safetensors.torch import save

                contents[_MODEL] = save({name: t.detach().cpu().contiguous() for name, t in model.items()})
            manifest = {name: {"bytes": len(c), "blake2b": _digest(c)} for name, c in contents.items()}
            contents[_MANIFEST] = json.dumps({"id": record.id, "files": manifest}, indent=1).encode()
            for name, content in contents.items():
                (folder / name).write_bytes(content)

        publish_directory(self.path(record.id), fill, self.scratch)
        self._failure_path(record.id).unlink(missing_ok=True)

    def write_failure(self, failure: Failure) -> None:
        """Keeps why an experiment has no result; an earlier reason is replaced."""
        write_atomically(self._failure_path(failure.id), _json_bytes(failure), self.scratch)

    def remove_failure(self, experiment_id: str) -> None:
        """Forgets a failure."""
        self._failure_path(experiment_id).unlink(missing_ok=True)

    def write_gallery(self, dataset: str, category: str, data_fingerprint: str, images: Sequence[GalleryImage]) -> None:
        """Keeps a category's gallery images, small (``shrink`` makes them); a gallery already there stays."""
        target = self._gallery_path(dataset, category, data_fingerprint)
        if (target / "gallery.json").is_file():
            return

        def fill(folder: Path) -> None:
            entries = []
            for index, image in enumerate(images):
                filename, mask = f"{index}.jpg", None
                Image.fromarray(image.image).save(folder / filename, quality=92)
                if image.mask is not None:
                    mask = f"{index}-mask.png"
                    Image.fromarray(image.mask.astype(np.uint8) * 255).save(folder / mask)
                entries.append(
                    {
                        "sample_id": image.sample_id,
                        "defect_type": image.defect_type,
                        "size": list(image.size),
                        "image": filename,
                        "mask": mask,
                    }
                )
            content = {"dataset": dataset, "category": category, "pictures": entries}
            (folder / "gallery.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

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
        return self.root / "plans" / f"{harmless}-{_digest(name.encode())[:8]}.json"

    def _gallery_path(self, dataset: str, category: str, data_fingerprint: str) -> Path:
        key = "\0".join((dataset, category, data_fingerprint)).encode()
        return self.root / "galleries" / _digest(key)[:16]

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

    def _read_model(self, model: type[ModelT], path: Path) -> ModelT | None:
        problem = _problem(model, path)
        if problem is not None:
            self._note(problem)
            return None
        return model.model_validate_json(path.read_bytes())

    def _manifest(self, experiment_id: str) -> dict[str, dict[str, Any]]:
        path = self.path(experiment_id) / _MANIFEST
        try:
            manifest = json.loads(path.read_bytes())
            files: dict[str, dict[str, Any]] = manifest["files"]
            if manifest["id"] != experiment_id or not {_RECORD, _ARRAYS} <= set(files):
                raise ValueError("it is not of this experiment")
            if not set(files) <= {_RECORD, _ARRAYS, _MAPS, _MODEL, _LOG}:
                raise ValueError("it names unknown files")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(path, str(error)) from error
        return files

    def _verified(self, experiment_id: str, name: str) -> bytes:
        """A file's bytes, compared with the manifest."""
        folder = self.path(experiment_id)
        if not folder.is_dir():
            raise AndonError(f"{self.root}: has no experiment {experiment_id}")
        expected = self._manifest(experiment_id)[name]
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise _damaged(folder / name, error.strerror or str(error)) from error
        if _digest(content) != expected.get("blake2b"):
            raise _damaged(
                folder / name, f"{len(content)} bytes that are not those written ({expected.get('bytes')} bytes)"
            )
        return content

    def _set_aside(self, path: Path, reason: str) -> str:
        corrupt = self.root / "corrupt"
        corrupt.mkdir(exist_ok=True)
        target, count = corrupt / path.name, 1
        while target.exists():
            count += 1
            target = corrupt / f"{path.name}.{count}"
        path.rename(target)
        return f"{reason}; moved to {target}, it will be done again"


def shrink(
    sample_id: str, defect_type: str, image: ImageArray, mask: BoolArray | None, side: int = GALLERY_SIDE
) -> GalleryImage:
    """A gallery image from an image RGB uint8 ``[H, W, 3]`` and its mask bool ``[H, W]``.

    A pixel of the small mask is set where any pixel under it is: a defect of one pixel stays visible.
    """
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)) if scale < 1 else image
    if mask is not None and scale < 1:
        coverage = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)
        mask = np.asarray(coverage) > 0
    return GalleryImage(sample_id, defect_type, (height, width), small, mask)


def _read_gallery(folder: Path) -> list[GalleryImage]:
    """Any of ``_UNREADABLE`` where it is damaged."""
    images = []
    content = json.loads((folder / "gallery.json").read_bytes())
    for entry in content["pictures"]:
        pixels = _read_pixels(folder, entry["image"], "RGB")
        mask = None if entry["mask"] is None else _read_pixels(folder, entry["mask"], "L") > 0
        height, width = entry["size"]
        images.append(GalleryImage(entry["sample_id"], entry["defect_type"], (height, width), pixels, mask))
    return images


def _read_pixels(folder: Path, name: str, mode: str) -> npt.NDArray[np.uint8]:
    if Path(name).name != name:
        raise ValueError(f"{name!r} is not a file of the gallery")
    with Image.open(folder / name) as image:
        if max(image.size) > GALLERY_SIDE:
            raise ValueError(f"{name} is larger than a gallery image")
        return np.asarray(image.convert(mode))


def _gallery_problem(folder: Path) -> str | None:
    try:
        _read_gallery(folder)
    except _UNREADABLE as error:
        return str(_damaged(folder, str(error)))
    return None


def _variant(spec: ExperimentSpec) -> str:
    """What must be equal for two experiments to be averaged over seeds."""
    return spec.model_copy(update={"seed": 0, "category": "", "data_fingerprint": ""}).id


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _damaged(path: Path, reason: str) -> AndonError:
    return AndonError(f"{path}: damaged ({reason})")


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


def _problem(model: type[BaseModel], path: Path) -> str | None:
    try:
        model.model_validate_json(path.read_bytes())
    except OSError as error:
        return str(_damaged(path, error.strerror or str(error)))
    except ValidationError as error:
        return str(_damaged(path, _first(error)))
    return None


def _json_bytes(model: BaseModel) -> bytes:
    """JSON that every reader takes: non-finite floats become strings, which the models read back as floats."""

    def plain(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value

    return json.dumps(plain(model.model_dump(mode="python")), ensure_ascii=False, indent=1, allow_nan=False).encode()


def _npz_bytes(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _load_npz(content: bytes) -> dict[str, npt.NDArray[Any]]:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
