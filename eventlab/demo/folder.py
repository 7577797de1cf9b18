"""The demo's folder. The demo replaces its own files and keeps all others."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from eventlab.errors import EventlabError
from eventlab.storage.local import LocalStorage

MARKER = ".eventlab-demo"
_STORE_NAMES = ("catalog.sqlite", "catalog.checksums", "journal", "lock", "segments", "snapshots")


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of a demo's lab and report."""

    path: Path

    @property
    def lab(self) -> Path:
        return self.path / "lab"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def _marker(self) -> Path:
        return self.path / MARKER

    def prepare(self) -> None:
        """Create the folder, or remove the last demo's lab and report.

        Raises
        ------
        EventlabError
            The lab's or report's path has something that no demo made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._clear()
            self.mark(None)
        except OSError as error:
            raise EventlabError(
                f"{self.path} cannot be used for the demo", got=str(error), hint="Choose another folder with --out."
            ) from error

    def mark(self, store_id: str | None) -> None:
        """Record the id of this demo's lab; None before it exists."""
        self._marker.write_text(json.dumps({"made_by": "eventlab demo", "store_id": store_id}) + "\n", encoding="utf-8")

    def _clear(self) -> None:
        existing = [path for path in (self.lab, self.report) if path.is_symlink() or path.exists()]
        if not existing:
            return
        made = self._read_marker()
        for path in existing:
            ours = made is not None and (path == self.report or self._is_ours(made.get("store_id")))
            if path.is_symlink() or not ours:
                raise EventlabError(
                    f"{path} was not made by the demo", hint="Move it away, or choose another folder with --out."
                )
        shutil.rmtree(self.lab, ignore_errors=not self.lab.exists())
        self.report.unlink(missing_ok=True)

    def _read_marker(self) -> dict[str, object] | None:
        if self._marker.is_symlink() or not self._marker.is_file():
            return None
        try:
            content = json.loads(self._marker.read_text(encoding="utf-8"))
        except ValueError:
            return None
        return content if isinstance(content, dict) and content.get("made_by") == "eventlab demo" else None

    def _is_ours(self, store_id: object) -> bool:
        """Whether the lab is the recorded one; without a record, or if it cannot be opened, only a store's files."""
        from eventlab.lab.open import open as open_lab

        if not self.lab.is_dir() or any(not path.name.startswith(_STORE_NAMES) for path in self.lab.iterdir()):
            return False
        try:
            with open_lab(self.lab, read_only=True) as lab:
                return store_id is None or lab.store.store_id == store_id
        except EventlabError:
            return True

    def write_report(self, text: str) -> Path:
        """Write the report and rename it into place."""
        try:
            LocalStorage(self.path).write(self.report.name, [text.encode()])
        except OSError as error:
            raise EventlabError(f"{self.report} cannot be written", got=str(error)) from error
        return self.report
