"""Counts the package's lines of code: lines with a token on them that is no comment and no docstring.

    python tests/code_lines.py [ROOT]

prints the lines of each room below ROOT/eventlab and their sum. `eventlab/testing/` and generated code do not count.
"""

from __future__ import annotations

import ast
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING,
    tokenize.ENDMARKER,
}  # fmt: skip


def code_lines(path: Path) -> int:
    """Lines of one file that hold code."""
    with path.open("rb") as file:
        tokens = [token for token in tokenize.tokenize(file.readline) if token.type not in NO_CODE]
    lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    return len(lines.difference(*_docstrings(ast.parse(path.read_text("utf-8")))))


def _docstrings(tree: ast.Module) -> Iterator[range]:
    """Lines of strings that stand as statements: docstrings, also those below a constant or a field."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield range(node.lineno, (node.end_lineno or node.lineno) + 1)


def counted(package: Path) -> Iterator[Path]:
    """The files that count."""
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        if inside.parts[0] != "testing" and not path.stem.endswith("_pb2"):
            yield path


def by_room(package: Path) -> Counter[str]:
    """Lines by the package's folders and single files."""
    found: Counter[str] = Counter()
    for path in counted(package):
        found[path.relative_to(package).parts[0]] += code_lines(path)
    return found


if __name__ == "__main__":
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    rooms = by_room(root / "eventlab")
    for room, lines in rooms.most_common():
        print(f"{lines:7,}  {room}")
    print(f"{rooms.total():7,}  in all")
