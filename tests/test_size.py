"""The package stays small: only what users can do with new lines raises the bound, by as many."""

from __future__ import annotations

from pathlib import Path

from tests.code_lines import by_room, code_lines

MOST_LINES = 25_527


def test_comments_docstrings_and_blanks_do_not_count(tmp_path):
    file = tmp_path / "example.py"
    file.write_text(
        '"""Module."""\n\n# comment\nLIMIT = 3  # counts\n"""Of what."""\n\n\ndef f(\n    x,\n):\n'
        '    """Function.\n\n    More.\n    """\n    return """a\n\nb"""\n'
    )
    assert code_lines(file) == 1 + 3 + 3


def test_the_package_stays_small():
    assert by_room(Path(__file__).parents[1] / "eventlab").total() <= MOST_LINES
