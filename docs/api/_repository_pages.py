"""MkDocs hook: pages of the repository that lie outside ``docs`` are pages of the site too, and links to them hold.

In the repository ``docs/methods.md`` links to ``../benchmarks/results/…``; on the site that page lies beside it.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page


def _outside(config: MkDocsConfig) -> list[str]:
    root = Path(config.config_file_path).parent
    results = sorted(path.relative_to(root).as_posix() for path in (root / "benchmarks" / "results").glob("*.md"))
    return ["CHANGELOG.md", "CONTRIBUTING.md", *results]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    root = Path(config.config_file_path).parent
    for name in _outside(config):
        file = File.generated(config, name, abs_src_path=str(root / name))
        file.inclusion = InclusionLevel.NOT_IN_NAV
        files.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    outside = _outside(config)
    if page.file.src_uri in outside:  # seen from the repository's root, the site's pages lie in docs
        return re.sub(r"\]\(((?:\.\./)*)docs/", r"](\1", markdown)
    return re.sub(rf"\]\(\.\./({'|'.join(map(re.escape, outside))})", r"](\1", markdown)
