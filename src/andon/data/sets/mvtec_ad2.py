"""MVTec AD 2 (Heckler-Kram et al. 2025).

train/good/*.png, validation/good/*.png
test_public/good/*.png, test_public/bad/*.png, test_public/ground_truth/bad/*_mask.png
test_private/*.png, test_private_mixed/*.png           without ground truth: its owner's server judges them
"""

from __future__ import annotations

from pathlib import Path

from andon.core import GOOD, Category, DataError, Note
from andon.data.files import WholeMaskReader, list_folder, make_samples, without_suffix
from andon.data.layout import Layout, ReadOptions
from andon.data.mvtec import good_samples
from andon.data.sets._common import unread
from andon.data.truth import folder_named, is_truth_folder

__all__ = ["LAYOUT"]

_PUBLIC = "test_public"
_PRIVATE = ("test_private", "test_private_mixed")
_MASK = "_mask"


def recognise(folder: Path) -> bool:
    return folder_named(folder, _PUBLIC) is not None


def read(folder: Path, name: str, dataset: str, options: ReadOptions) -> Category:
    reader = WholeMaskReader()
    samples = good_samples(folder, "train", reader) + good_samples(folder, "validation", reader)
    public = folder_named(folder, _PUBLIC)
    assert public is not None
    kinds = list_folder(public).folders
    truth = next((public / kind for kind in kinds if is_truth_folder(kind)), None)
    for kind in sorted(kinds, key=lambda kind: kind.casefold() != GOOD):
        if is_truth_folder(kind):
            continue
        images = list_folder(public / kind).images
        good = kind.casefold() == GOOD
        own = {} if good or truth is None else _masks(truth, kind)
        samples += make_samples(public / kind, images, "test", GOOD if good else kind, reader, own)
    known = {path for sample in samples for path in (sample.path, *sample.mask_paths)}
    notes = []
    for private in _PRIVATE:
        hidden = folder_named(folder, private)
        files = () if hidden is None else list_folder(hidden).images
        if hidden is not None and files:
            text = f"{hidden}: {len(files)} images without published ground truth are left out"
            notes.append(Note("info", "left-out", hidden, text))
            known |= {hidden / file for file in files}
    return Category(name, dataset, folder, tuple(samples), notes=(*notes, *unread(folder, known)), whole=True)


def _masks(truth: Path, kind: str) -> dict[str, tuple[Path, ...]]:
    folder = folder_named(truth, kind.casefold())
    found: dict[str, tuple[Path, ...]] = {}
    for name in () if folder is None else list_folder(folder).images:
        assert folder is not None
        stem = without_suffix(name).removesuffix(_MASK)
        if stem in found:
            raise DataError(f"{folder / name}: {found[stem][0]} is a mask of the same image; remove one")
        found[stem] = (folder / name,)
    return found


LAYOUT = Layout(
    name="mvtec-ad2",
    expects="train/good/*.png, test_public/bad/*.png and test_public/ground_truth/bad/*_mask.png",
    recognise=recognise,
    read=read,
    rule="the owner's train, validation and test_public; the private test sets have no published ground truth",
    published=True,
)
