"""Opening data sets, and the layouts that are known.

A new layout is one module with a ``LAYOUT`` (see ``andon.data.layout`` and, as an example, ``andon.data.mvtec``), named
in ``_LAYOUTS`` or given to ``register_layout``. A package of its own names it in an entry point of the group
``andon.layouts`` (name = layout's name, value = ``module:LAYOUT``).

>>> import tempfile
>>> from andon.synthetic import Counts, generate
>>> folder = tempfile.mkdtemp()
>>> _ = generate(f"{folder}/line", tasks=["pipe_clip"], counts=Counts(train=4, good=2, defective=3), jobs=1)
>>> category = load_dataset(f"{folder}/line")["pipe_clip"]
>>> len(category.train), len(category.test)
(4, 5)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from os import PathLike
from pathlib import Path

from andon.core import AndonError, Category, DataError, Dataset, listed
from andon.data import autovi, elpv, folder, mvtec
from andon.data.archives import is_archive, unpacked_beside
from andon.data.files import list_folder, listing_once
from andon.data.layout import Layout, ReadOptions
from andon.data.sets import dagm, ksdd, ksdd2, magnetic_tile, mvtec_ad2, neu, severstal, visa

__all__ = ["layout_names", "load_dataset", "register_layout"]

# Those of one data set each first; of the others in the order in which they are tried: a folder in the first layout
# would be recognised by the second as well.
_LAYOUTS: list[Layout] = [
    dagm.LAYOUT,
    dagm.ELLIPSES,
    elpv.LAYOUT,
    ksdd.LAYOUT,
    ksdd2.LAYOUT,
    magnetic_tile.LAYOUT,
    mvtec_ad2.LAYOUT,
    neu.LAYOUT,
    severstal.LAYOUT,
    *visa.LAYOUTS,
    autovi.LAYOUT,
    mvtec.LAYOUT,
    folder.LAYOUT,
]
_OWN = frozenset(layout.name for layout in _LAYOUTS)
_MOST_WRAPPERS = 3
"""Folders around a data set, with nothing else in them, that are entered: archives have such."""


def register_layout(layout: Layout) -> Layout:
    """Makes a layout known; it is tried before those of Andon. AndonError where another has its name."""
    if layout not in _LAYOUTS:
        if layout.name in {known.name for known in _LAYOUTS}:
            raise AndonError(f"two layouts are called {layout.name!r}")
        _LAYOUTS.insert(0, layout)
    return layout


def layout_names() -> tuple[str, ...]:
    """The names of all known layouts, in the order in which they are tried."""
    return tuple(layout.name for layout in _all_layouts())


def _all_layouts() -> list[Layout]:
    for point in entry_points(group="andon.layouts"):
        if point.name not in {known.name for known in _LAYOUTS}:
            register_layout(point.load())
    return _LAYOUTS


@listing_once()
def load_dataset(
    path: str | PathLike[str],
    layout: str | None = None,
    name: str | None = None,
    categories: Sequence[str] | None = None,
    *,
    train_fraction: float = 0.8,
) -> Dataset:
    """Opens a data set: a folder that is one category or holds one folder a category, or an archive of it.

    Lists files only, 100,000 take a few seconds; no image is opened, except masks in layouts where they alone say which
    images are good ("ksdd", "ksdd2"). The layout is found from the names of the folders. File names are in natural
    order (``img2`` before ``img10``). An archive (zip, tar) is unpacked once, into a folder beside it.

    Args:
        path: its folder, or archive.
        layout: "autovi", "mvtec", "folder", that of a published data set, or one that is registered; None finds out.
        name: what to call it in tables; None takes the folder's name.
        categories: read only these, in this order; None reads all.
        train_fraction: share of the good images that is for training, in a layout without a split ("folder").

    Raises:
        AndonError: no such folder, no images in it, unknown layout or category, a name twice, a bad configuration; a
            layout that is not clear.
    """
    root = Path(path)
    if not root.exists():
        raise AndonError(f"{root}: there is no such folder")
    # Not resolved: a link is called what the user called it.
    own_name = root.absolute().name or "data"
    if not root.is_dir():
        if not is_archive(root):
            raise AndonError(f"{root}: a file; a data set is a folder, or an archive (zip, tar)")
        root, own_name = unpacked_beside(root)
    layouts = _all_layouts()
    if layout is not None:
        layouts = [known for known in layouts if known.name == layout]
        if not layouts:
            raise AndonError(f"unknown layout {layout!r}; known: {', '.join(layout_names())}")
    dataset = name or own_name
    options = ReadOptions(train_fraction)
    root, found = _found(root, own_name, layouts)
    if categories is not None:
        unknown = [child for child in categories if child not in found]
        if unknown or not categories:
            missing = f"no category {', '.join(map(repr, unknown))}" if unknown else "no category is chosen"
            raise AndonError(f"{root}: {missing}; there are: {listed(found)}")
        found = {child: found[child] for child in dict.fromkeys(categories)}
    kinds = {place.layout.name: place.layout for place in found.values()}
    if len(kinds) > 1:
        each = listed(f"{child} is {place.layout.name}" for child, place in found.items())
        raise AndonError(f"{root}: the categories have different layouts ({each}); name one layout, or categories")
    read = {child: _read(place, child, dataset, options) for child, place in found.items()}
    (kind,) = kinds.values()
    return Dataset(dataset, kind.name, root, read, kind.rule)


@dataclass(frozen=True)
class _Place:
    """Where a category is.

    Attributes:
        folder: it, or that of several.
        layout: its.
    """

    folder: Path
    layout: Layout


def _found(root: Path, own_name: str, layouts: Sequence[Layout]) -> tuple[Path, dict[str, _Place]]:
    """The data set's folder and its categories; a folder around it, with no other folder in it, is entered.

    Not for images that merely lie in a folder: what is around them may say more of them.
    """
    first = root
    for _ in range(_MOST_WRAPPERS):
        found = _categories(root, own_name, layouts, bare=root == first)
        if found:
            return root, found
        listing = list_folder(root)
        if len(listing.folders) != 1 or listing.images:
            break
        root = root / listing.folders[0]
        own_name = root.name
    raise AndonError(_nothing_found(first, layouts))


def _categories(root: Path, own_name: str, layouts: Sequence[Layout], *, bare: bool) -> dict[str, _Place]:
    alone = _one_category(root, layouts) if bare else _recognised(root, layouts)
    if alone is not None:
        return _parts(root, own_name, alone)
    children = {child: _recognised(root / child, layouts) for child in list_folder(root).folders}
    kinds = {child: kind for child, kind in children.items() if kind is not None}
    several = [child for child, kind in kinds.items() if kind.parts is not None]
    if several and len(kinds) > 1:
        raise DataError(f"{root}: holds several data sets ({listed(kinds)}); give the folder of one")
    if several:
        return _parts(root / several[0], several[0], kinds[several[0]])
    return {child: _Place(root / child, kind) for child, kind in kinds.items()}


def _parts(folder: Path, name: str, layout: Layout) -> dict[str, _Place]:
    names = (name,) if layout.parts is None else layout.parts(folder)
    return {part: _Place(folder, layout) for part in names}


def _recognised(path: Path, layouts: Sequence[Layout]) -> Layout | None:
    """The layout of a folder; DataError where it fits those of two published data sets."""
    added = next((layout for layout in layouts if layout.name not in _OWN and layout.recognise(path)), None)
    if added is not None:
        return added
    named = len(layouts) == 1
    own = [x for x in layouts if x.published and (named or not x.asked) and x.recognise(path)]
    if len(own) > 1:
        names = [layout.name for layout in own]
        ways = " or ".join(f"--layout {name}" for name in names)
        raise DataError(f"{path}: may be the data set {' or '.join(names)}; say which with {ways}")
    if own:
        return own[0]
    return next((layout for layout in layouts if not layout.published and layout.recognise(path)), None)


def _one_category(root: Path, layouts: Sequence[Layout]) -> Layout | None:
    """The layout in which the folder itself is a category, or holds those of one data set."""
    found = _recognised(root, layouts)
    if found is None and folder.LAYOUT in layouts and folder.has_images(root):
        return folder.LAYOUT
    return found


def _read(place: _Place, name: str, dataset: str, options: ReadOptions) -> Category:
    category = place.layout.read(place.folder, name, dataset, options)
    if not category.samples:
        raise AndonError(f"{place.folder}: no images in it; expected {place.layout.expects}")
    return category


def _nothing_found(root: Path, layouts: Sequence[Layout]) -> str:
    archives = [name for name in list_folder(root).others if is_archive(root / name)]
    if archives:
        return (
            f"{root}: no data set found, but archives ({listed(archives, 3)}); andon data fetch NAME --from {root} "
            "unpacks those of a published data set"
        )
    general = [layout for layout in layouts if not layout.published] or list(layouts)
    expected = "; or ".join(f"{layout.name}: {layout.expects}" for layout in general)
    more = "; or a published data set as it unpacks" if len(general) < len(layouts) else ""
    return f"{root}: no data set found; expected a category, or a folder of categories, as {expected}{more}"
