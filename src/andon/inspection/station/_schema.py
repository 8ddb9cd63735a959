"""The journal's tables."""

from __future__ import annotations

__all__ = ["COLUMNS", "ENTRIES", "SCHEMA", "VERSION"]

VERSION = 1

COLUMNS = (
    "at", "inspector", "model", "name", "digest", "verdict", "score", "p_value", "look", "stop", "reason", "area",
    "width", "height", "seconds", "regions",
)  # fmt: skip
"""Of an entry, as it is written; its id counts up by itself."""


def _unchanged(table: str) -> tuple[str, ...]:
    """What is written in a table stays as it is, whoever asks."""
    return tuple(
        f"CREATE TRIGGER {table}_no_{what} BEFORE {what} ON {table} BEGIN SELECT RAISE(ABORT, 'append-only'); END"
        for what in ("update", "delete")
    )


SCHEMA = (
    "CREATE TABLE entries (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, inspector TEXT NOT NULL,"
    " model TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, verdict TEXT NOT NULL, score REAL, p_value REAL,"
    " look REAL NOT NULL, stop REAL NOT NULL, reason TEXT, area REAL, width INTEGER NOT NULL, height INTEGER NOT NULL,"
    " seconds REAL NOT NULL, regions TEXT NOT NULL)",
    "CREATE INDEX entries_by_inspector ON entries (inspector, id)",
    "CREATE INDEX entries_by_verdict ON entries (verdict, id)",
    "CREATE INDEX entries_by_time ON entries (at, verdict)",
    "CREATE INDEX entries_by_inspector_and_time ON entries (inspector, at, verdict)",
    "CREATE TABLE reviews (id INTEGER PRIMARY KEY AUTOINCREMENT, entry INTEGER NOT NULL REFERENCES entries (id),"
    " at REAL NOT NULL, word TEXT NOT NULL, who TEXT NOT NULL, note TEXT NOT NULL)",
    "CREATE INDEX reviews_by_entry ON reviews (entry, id)",
    "CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, inspector TEXT NOT NULL,"
    " kind TEXT NOT NULL, who TEXT NOT NULL, text TEXT NOT NULL)",
    "CREATE TABLE images (digest TEXT PRIMARY KEY, at REAL NOT NULL, passed INTEGER NOT NULL,"
    " reviewed INTEGER NOT NULL, size INTEGER NOT NULL, data BLOB NOT NULL)",
    "CREATE INDEX images_in_order ON images (reviewed, passed DESC, at, size)",
    "CREATE TABLE pulse (at REAL)",
    "INSERT INTO pulse VALUES (0)",
    *_unchanged("entries"),
    *_unchanged("reviews"),
    *_unchanged("events"),
)

ENTRIES = (
    "SELECT e.id, EXISTS (SELECT 1 FROM images i WHERE i.digest = e.digest), r.at, r.word, r.who, r.note, "
    + ", ".join(f"e.{column}" for column in COLUMNS)
    + " FROM entries e LEFT JOIN reviews r ON r.id = (SELECT max(id) FROM reviews WHERE entry = e.id)"
)
"""Entries with what is known of each: rows for ``journal._entry``; conditions follow."""
