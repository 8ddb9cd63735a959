"""What the pages share: templates, styles, and scripts under a hash, all of them in the page itself."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

import jinja2
from markupsafe import Markup

__all__ = ["page_environment", "page_script", "page_style"]


def page_environment() -> jinja2.Environment:
    """Of the templates: everything is escaped, and a value that is missing is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("andon", "report/templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def page_script(name: str) -> dict[str, str]:
    """The values ``script`` and ``script_hash`` (for the page's security policy) of a page's own script."""
    script = _asset(name) + _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return {"script": Markup(script), "script_hash": digest}


def page_style(*names: str) -> Markup:
    """Style sheets one behind the other."""
    return Markup("".join(map(_asset, names)))


def _asset(name: str) -> str:
    return resources.files("andon.report").joinpath("templates", name).read_text(encoding="utf-8")
