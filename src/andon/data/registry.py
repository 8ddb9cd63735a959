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
from importlib.metadata import entry_points
from os import PathLike
from pathlib import Path

from andon.core import AndonError, Category, Dataset, listed
from andon.data import autovi, folder, mvtec
from andon.data.files import list_folder
from andon.data.layout import Layout, ReadOptions

__all__ = ["layout_names", "load_dataset", "register_layout"]

# In the order in which they are tried: a folder in the first layout would be recognised by the second as well.
_LAYOUTS: list[Layout] = [autovi.LAYOUT, mvtec.LAYOUT, folder.LAYOUT]


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


def load_dataset(
    path: str | PathLike[str],
    layout: str | None = None,
    name: str | None = None,
    categories: Sequence[str] | None = None,
    *,
    train_fraction: float = 0.8,
) -> Dataset:
    """Opens a data set: a folder that is one category, or holds one folder a category.

    Lists files only: no image is opened, 100,000 take a few seconds. The layout is found from the names of
    the folders. File names are in natural order (``img2`` before ``img10``).

    Args:
        path: its folder.
        layout: "autovi", "mvtec", "folder" or another that is registered; None finds out.
        name: what to call it in tables; None takes the folder's name.
        categories: read only these, in this order; None reads all.
        train_fraction: share of the good images that is for training, in a layout without a split ("folder").

    Raises:
        AndonError: no such folder, no images in it, unknown layout or category, a name twice, a bad configuration.
    """
    root = Path(path)
    if not root.exists():
        raise AndonError(f"{root}: there is no such folder")
    if not root.is_dir():
        raise AndonError(f"{root}: a file; a data set is a folder")
    layouts = _all_layouts()
    if layout is not None:
        layouts = [known for known in layouts if known.name == layout]
        if not layouts:
            raise AndonError(f"unknown layout {layout!r}; known: {', '.join(layout_names())}")
    # Not resolved: a link is called what the user called it.
    own_name = root.absolute().name or "data"
    dataset = name or own_name
    options = ReadOptions(train_fraction)

    alone = _one_category(root, layouts)
    if alone is not None:
        found = {own_name: (root, alone)}
    else:
        children = {child: root / child for child in list_folder(root).folders}
        kinds = {child: _recognised(path, layouts) for child, path in children.items()}
        found = {child: (children[child], kind) for child, kind in kinds.items() if kind is not None}
    if not found:
        raise AndonError(_nothing_found(root, layouts))
    if categories is not None:
        unknown = [child for child in categories if child not in found]
        if unknown or not categories:
            missing = f"no category {', '.join(map(repr, unknown))}" if unknown else "no category is chosen"
            raise AndonError(f"{root}: {missing}; there are: {listed(found)}")
        found = {child: found[child] for child in dict.fromkeys(categories)}
    names = {kind.name for _, kind in found.values()}
    if len(names) > 1:
        each = listed(f"{child} is {kind.name}" for child, (_, kind) in found.items())
        raise AndonError(f"{root}: the categories have different layouts ({each}); name one layout, or categories")
    read = {child: _read(kind, path, child, dataset, options) for child, (path, kind) in found.items()}
    return Dataset(dataset, names.pop(), root, read)


def _recognised(path: Path, layouts: Sequence[Layout]) -> Layout | None:
    return next((layout for layout in layouts if layout.recognise(path)), None)


def _one_category(root: Path, layouts: Sequence[Layout]) -> Layout | None:
    """The layout in which the folder itself is a category."""
    found = _recognised(root, layouts)
    if found is None and folder.LAYOUT in layouts and folder.has_images(root):
        return folder.LAYOUT
    return found


def _read(layout: Layout, path: Path, name: str, dataset: str, options: ReadOptions) -> Category:
    category = layout.read(path, name, dataset, options)
    if not category.samples:
        raise AndonError(f"{path}: no images in it; expected {layout.expects}")
    return category


def _nothing_found(root: Path, layouts: Sequence[Layout]) -> str:
    expected = "; or ".join(f"{layout.name}: {layout.expects}" for layout in layouts)
    return f"{root}: no data set found; expected a category, or a folder of categories, as {expected}"
