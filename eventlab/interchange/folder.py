"""An export of several event types: a file for each, and a manifest that lists them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from eventlab.errors import FeedError
from eventlab.interchange import proof
from eventlab.interchange.columnar import FORMAT, Columnar, ColumnarFile, checked
from eventlab.storage.api import Storage

MANIFEST = "manifest.json"


def manifest(
    columnar: Columnar, store_id: str, files: Mapping[str, tuple[int, str]], placeholder: str
) -> Iterator[bytes]:
    """The bytes of the manifest of a folder. It has the number of events and the proof of each event type's file."""
    content = {
        "format": FORMAT,
        "columnar": columnar,
        "store_id": store_id,
        "types": {name: {"events": events, "sha256": digest} for name, (events, digest) in files.items()},
        "proof": placeholder,
    }
    yield (json.dumps(content, indent=1) + "\n").encode()


def file_of(event_type: str, columnar: Columnar) -> str:
    """The name of an event type's file."""
    return f"{event_type}.{columnar}"


def checked_folder(storage: Storage, folder: str) -> tuple[list[ColumnarFile], str, str]:
    """Open the files of a folder, whose bytes agree with the manifest; returns also its proof and the store's id.

    Raises
    ------
    FeedError
        A file is missing, or is not the one that was exported.
    """
    try:
        digest = proof.check(storage, MANIFEST)
    except FileNotFoundError:
        raise FeedError(f"{folder}: not an export of eventlab", expected=f"a file {MANIFEST}") from None
    if digest is None:
        raise FeedError(f"{MANIFEST}: its proof is missing", hint="It was cut off or damaged; export it again.")
    try:
        content = json.loads(bytes(storage.read(MANIFEST)))
        columnar: Columnar = "arrow" if content["columnar"] == "arrow" else "parquet"
        described = {str(name): (int(one["events"]), str(one["sha256"])) for name, one in content["types"].items()}
        store_id, newer = str(content["store_id"]), int(content["format"]) > FORMAT
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FeedError(f"{MANIFEST}: cannot be read", got=str(error)) from error
    if newer:
        raise FeedError(f"{folder}: exported by a newer eventlab", got=content["format"], expected=FORMAT)
    files = []
    for event_type, (events, sha256) in described.items():
        name = file_of(event_type, columnar)
        try:
            file, found = checked(storage, name, columnar)
        except (FileNotFoundError, ValueError) as error:  # no file, or no name of one
            raise FeedError(f"{folder}: a file of the export is missing", expected=name) from error
        if (file.declared.name, file.count, found) != (event_type, events, sha256):
            raise FeedError(f"{name}: another file than the one exported here", got=found, expected=sha256)
        files.append(file)
    return files, digest, store_id
