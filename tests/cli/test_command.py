from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import eventlab as el


def run(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "eventlab", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **options,
    )


def test_help_loads_nothing_heavy_and_documents_exit_codes():
    code = (
        "import sys; sys.argv = ['eventlab', '--help']\n"
        "from eventlab.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'polars', 'numba', 'numpy', 'pyarrow', 'matplotlib', 'tqdm', 'sqlite3'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "3 a" in done.stdout
    assert "corrupt store" in " ".join(done.stdout.split())


def test_a_process_ends_with_the_documented_codes(lab_dir, tmp_path):
    found = run("info", lab_dir, "--json")
    assert (found.returncode, found.stderr) == (0, "")
    assert json.loads(found.stdout)["path"] == str(lab_dir)
    missing = run("info", tmp_path / "nowhere")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr.startswith("error: ")
    assert "Traceback" not in missing.stderr
    assert run("info").returncode == 2


def test_damage_is_exit_code_3_and_a_document(cli, lab_dir):
    with el.open(lab_dir) as lab:
        lab.seal()
    segment = next((lab_dir / "segments").iterdir())
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 0xFF
    segment.write_bytes(bytes(content))
    result = cli("verify", lab_dir, "--json")
    assert result.exit_code == 3, result.output
    problem = json.loads(result.stdout)
    assert not problem["ok"]
    assert problem["problem"]["error"] == "StoreCorrupt"
    assert result.stderr.startswith("error: ")


def test_debug_shows_the_traceback_before_or_after_the_command(cli, tmp_path):
    for words in (("--debug", "info", tmp_path / "x"), ("info", tmp_path / "x", "--debug")):
        result = cli(*words)
        assert result.exit_code == 1
        assert "Traceback" in result.stderr
        assert "NotAStore" in result.stderr


def test_an_error_has_its_parts(cli, lab_dir):
    result = cli("state", lab_dir, "nonsense", "market/BTCUSDT")
    assert result.exit_code == 1
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["error:", "got", "expected"]


def test_moments_that_contradict_are_usage(cli, lab_dir):
    result = cli("state", lab_dir, "trades", "market/BTCUSDT", "--as-of", "3", "--version", "3")
    assert result.exit_code == 2
    assert cli("state", lab_dir, "trades", "market/BTCUSDT", "--as-of", "soon").exit_code == 1
    assert cli("history", lab_dir, "trades", "market/BTCUSDT", "--columns", "nonsense").exit_code == 2


OWN = """
import eventlab as el

@el.reducer
class Largest:
    size: float = 0.0

    def on_market_data(state, event):
        if event.volume > state.size:
            state.size = event.volume

number = 3
"""


def test_a_users_reducer_by_file_and_by_module(cli, lab_dir, tmp_path, monkeypatch):
    (tmp_path / "mine_here.py").write_text(OWN)
    with el.open(lab_dir, read_only=True) as lab:
        largest = lab.events(el.MarketData)["volume"].max()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in (f"{tmp_path}/mine_here.py:Largest", "mine_here:Largest"):
        result = cli("state", lab_dir, name, "market/BTCUSDT", "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["state"]["size"] == largest


def test_a_reducer_that_cannot_be_had_is_an_error(cli, lab_dir, tmp_path):
    (tmp_path / "bad_one.py").write_text("1 / 0\n")
    (tmp_path / "other_one.py").write_text(OWN.replace("Largest", "Other"))
    for name in (f"{tmp_path}/bad_one.py:X", f"{tmp_path}/nowhere.py:X", f"{tmp_path}/other_one.py:Nothing",
                 f"{tmp_path}/other_one.py:number", "no.such.module:X"):  # fmt: skip
        result = cli("state", lab_dir, name, "market/BTCUSDT")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("error: ")


def test_output_may_be_cut_off(lab_dir):
    command = f"'{sys.executable}' -m eventlab events '{lab_dir}' book_change --limit 0 | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.startswith("position")
    assert "Traceback" not in done.stderr


def test_reading_writes_nothing(cli, lab_dir):
    def there():
        # SQLite keeps an empty log and an index of it beside a catalog that is being read.
        files = [path for path in Path(lab_dir).rglob("*") if path.is_file() and not path.name.endswith("-shm")]
        return {path: path.read_bytes() for path in files if path.stat().st_size}

    before = there()
    for words in (("info",), ("events", "market_data"), ("state", "trades", "market/BTCUSDT"), ("verify",)):
        assert cli(words[0], lab_dir, *words[1:]).exit_code == 0
    assert there() == before
