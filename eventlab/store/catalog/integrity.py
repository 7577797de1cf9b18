"""Contradictions inside the catalog, found in its tables alone."""

from __future__ import annotations

from eventlab.events.types import EventType
from eventlab.store.catalog.database import Catalog

_MOST_PROBLEMS = 20

_CONTRADICTIONS = (
    (
        "a segment's files do not hold all its events",
        (
            "SELECT s.first_position, s.stop_position, coalesce(sum(f.rows), 0) FROM segments s LEFT JOIN files f "
            "ON f.segment = s.first_position GROUP BY s.first_position "
            "HAVING coalesce(sum(f.rows), 0) <> s.stop_position - s.first_position"
        ),
    ),
    (
        "a commit has impossible numbers",
        (
            "SELECT first_position, events, clamped FROM commits "
            "WHERE events < 1 OR abs(clamped) > events OR (source IS NULL) <> (chunk IS NULL) OR chunk < 0"
        ),
    ),
    (
        "aggregates are not numbered without gap",
        "SELECT max(no), count(*) FROM aggregates HAVING count(*) > 0 AND (max(no) <> count(*) - 1 OR min(no) <> 0)",
    ),
    (
        "a file's runs do not hold all its rows",
        (
            "SELECT f.name, f.rows, coalesce(sum(r.rows), 0) FROM files f LEFT JOIN runs r ON r.file = f.no "
            "GROUP BY f.no HAVING coalesce(sum(r.rows), 0) <> f.rows"
        ),
    ),
)
"""What is wrong, and a query that finds the first such row."""


def contradictions(catalog: Catalog) -> list[str]:
    """What is wrong with the catalog's tables; call it inside a transaction."""
    found = [str(text) for (text,) in catalog.execute(f"PRAGMA integrity_check({_MOST_PROBLEMS})")]
    problems = [text for text in found if text != "ok"]
    problems += [
        f"row {row} of table {table} refers to a row of {parent} that is not there"
        for table, row, parent, _ in catalog.execute("PRAGMA foreign_key_check").fetchmany(_MOST_PROBLEMS)
        if table != "runs"  # runs of dropped files stay as long as readers may need them
    ]
    for at, (no, name, version, schema) in enumerate(catalog.event_types()):
        declared = EventType.from_schema_json(schema)
        if (no, name, version) != (at, declared.name, declared.schema_version):
            problems.append(f"event type {name!r} of version {version} has another schema or number")
    for what, query in _CONTRADICTIONS:
        row = catalog.execute(query).fetchone()
        if row is not None:
            problems.append(f"{what}: {', '.join(map(str, row))}")
    return problems
