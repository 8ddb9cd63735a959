"""Code from outside that a plan runs, and whether it is known here.

A store goes from hand to hand, and going on with its plan imports the files that the plan names. So path and SHA-256 of
what a run imported are kept with the plan, under a seal that only this user of this machine can make: ``resume_plan``
refuses code that is not sealed, or that has changed, unless it is told to trust it. Whoever runs a plan that he names
himself knows what he runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import importlib.util
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

from andon.benchmark._serial import read_bytes
from andon.benchmark.plan import Plan
from andon.benchmark.record import StoredCode, StoredPlan
from andon.core import StoreError
from andon.methods import method_files, method_names
from andon.weights import cache_directory

__all__ = ["foreign_code", "refuse_unknown_code"]

_KEY_BYTES = 32


def foreign_code(plan: Plan, *, seal: bool = False) -> tuple[StoredCode, ...]:
    """The code from outside that a plan's methods import, as it is now; nothing is imported.

    Files ``path/to/file.py:Class`` (with the modules beside them that they import) and packages
    ``package.module:Class``; not the methods that are installed under a name. What is not there is left out: it cannot
    be run.

    Args:
        seal: with the seal of this user, who has it run.
    """
    found = dict(_hashed(plan))
    key = _key(create=True) if seal and found else None
    return tuple(
        StoredCode(reference=reference, path=path, sha256=digest, seal=_seal(key, path, digest))
        for reference, (path, digest) in found.items()
    )


def refuse_unknown_code(stored: StoredPlan, plan: Plan, where: str) -> None:
    """StoreError where a plan's code is not what this user has run.

    Args:
        stored: the plan as the store has it.
        plan: the same, to be run.
        where: the plan, for the message.
    """
    key, before = _key(create=False), {code.reference: code for code in stored.code}
    for code in foreign_code(plan):
        known = before.get(code.reference)
        sealed = known is not None and key is not None and _is_sealed(known, key)
        if known is None or not sealed:
            reason = "it is not known to have been run here"
        elif (known.path, known.sha256) != (code.path, code.sha256):
            reason = f"what was run was {known.path} (SHA-256 {known.sha256})"
        else:
            continue
        raise StoreError(
            f"{where}: runs {code.reference} from {code.path} (SHA-256 {code.sha256}), and {reason}; "
            "read that code, then add --trust (resume_plan: trust=True), or run your own plan file"
        )


def _hashed(plan: Plan) -> Iterator[tuple[str, tuple[str, str]]]:
    """(reference, (path, SHA-256)) of what can be found."""
    installed = set(method_names())
    for entry in plan.content.methods:
        name, colon, _ = entry.method.rpartition(":")
        if not colon or entry.method in installed:
            continue
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # absent or unreadable: importing it will say so
            if name.endswith(".py"):
                path = (plan.base / name).resolve()
                yield entry.method, (str(path), _digest(method_files(path)))
            elif (package := _package(name)) is not None:
                yield entry.method, package


def _package(module: str) -> tuple[str, str] | None:
    """Path and hash of the top-level package or module that importing a module would run."""
    top = module.partition(".")[0]
    spec = None if top in ("", "andon", "__main__") else importlib.util.find_spec(top)
    if spec is None:
        return None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    if folders:
        files = sorted(path for folder in folders for path in folder.rglob("*.py"))
    elif spec.origin and Path(spec.origin).is_file():
        return spec.origin, hashlib.sha256(read_bytes(Path(spec.origin))).hexdigest()
    else:
        return None  # built in
    return str(folders[0]), _digest(files, package=True)


def _digest(files: Sequence[Path], *, package: bool = False) -> str:
    """SHA-256 of a file; of several, or of a package, over their names and hashes."""
    if len(files) == 1 and not package:
        return hashlib.sha256(read_bytes(files[0])).hexdigest()
    digest = hashlib.sha256()
    for path in files:
        digest.update(str(path.name).encode() + b"\0" + hashlib.sha256(read_bytes(path)).digest())
    return digest.hexdigest()


def _key(*, create: bool) -> bytes | None:
    """This user's key on this machine; None where there is none (or none can be kept: then nothing is known)."""
    path = cache_directory() / "known-code.key"
    try:
        if create and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f".{path.name}.{os.getpid()}")
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
            try:
                os.link(aside, path)  # unlike a rename it leaves the key that another process was quicker with
            finally:
                aside.unlink()
    except FileExistsError:
        pass
    except OSError:
        return None
    try:
        key = read_bytes(path)
    except OSError:
        return None
    return key if len(key) == _KEY_BYTES else None


def _seal(key: bytes | None, path: str, digest: str) -> str:
    return "" if key is None else hmac.digest(key, f"{path}\0{digest}".encode(errors="surrogateescape"), "sha256").hex()


def _is_sealed(code: StoredCode, key: bytes) -> bool:
    return hmac.compare_digest(code.seal.encode(), _seal(key, code.path, code.sha256).encode())
