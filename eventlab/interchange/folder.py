"""An export of several types: a folder with one file a type, and a manifest that names them all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from eventlab.errors import FeedError
from eventlab.interchange import proof
from eventlab.interchange.columnar import FORMAT, Columnar, ColumnarFile, checked

MANIFEST = "manifest.json"


def write_manifest(
    path: Path, columnar: Columnar, store_id: str, files: Mapping[str, tuple[int, str]], written: str
) -> None:
    """Name the files of a folder: events and proof of each, by event type."""
    content = {
        "format": FORMAT,
        "columnar": columnar,
        "store_id": store_id,
        "types": {name: {"events": events, "sha256": digest} for name, (events, digest) in files.items()},
        "proof": written,
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def file_of(folder: Path, name: str, columnar: Columnar) -> Path:
    """Where a type's file lies."""
    return folder / f"{name}.{columnar}"


def checked_folder(folder: Path) -> tuple[list[ColumnarFile], str, str]:
    """Files of a folder whose bytes agree with the manifest, the manifest's proof, and the store's id.

    Raises
    ------
    FeedError
        A file that is missing or not the one named; bytes that are not what was exported.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise FeedError(f"{folder.name}: not an export of eventlab", expected=f"a file {MANIFEST}")
    digest = proof.check(manifest)
    if digest is None:
        raise FeedError(f"{manifest.name}: its proof is missing", hint="It was cut off or damaged; export it again.")
    try:
        content = json.loads(manifest.read_bytes())
        columnar: Columnar = "arrow" if content["columnar"] == "arrow" else "parquet"
        named = {str(name): (int(one["events"]), str(one["sha256"])) for name, one in content["types"].items()}
        store_id, newer = str(content["store_id"]), int(content["format"]) > FORMAT
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FeedError(f"{manifest.name}: cannot be read", got=str(error)) from error
    if newer:
        raise FeedError(f"{folder.name}: exported by a newer eventlab", got=content["format"], expected=FORMAT)
    files = []
    for name, (events, sha256) in named.items():
        path = file_of(folder, name, columnar)
        if path.parent != folder or not path.is_file():
            raise FeedError(f"{folder.name}: a file of the export is missing", expected=path.name)
        file, found = checked(path, columnar)
        if (file.declared.name, file.count, found) != (name, events, sha256):
            raise FeedError(f"{path.name}: another file than the one exported here", got=found, expected=sha256)
        files.append(file)
    return files, digest, store_id
