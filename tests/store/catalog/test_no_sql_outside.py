"""Only the catalog has SQL statements; other rooms call its methods."""

from __future__ import annotations

import re
from pathlib import Path

import eventlab

PACKAGE = Path(eventlab.__file__).parent
CATALOG = PACKAGE / "store" / "catalog"
SQL = re.compile(
    r"SELECT .* FROM|INSERT (?:OR [A-Z]+ )?INTO|DELETE FROM|UPDATE .* SET|PRAGMA|\.execute(?:many|script)?\("
)


def test_no_statement_is_outside_the_catalog():
    found = [
        f"{path.relative_to(PACKAGE)}:{number}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if CATALOG not in path.parents
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if SQL.search(line)
    ]
    assert found == []


def test_the_pattern_finds_the_statements_of_the_catalog():
    names = {path.name for path in CATALOG.glob("*.py") if SQL.search(path.read_text(encoding="utf-8"))}
    assert {"database.py", "connection.py", "checkpoints.py", "read_log.py"} <= names
