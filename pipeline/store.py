"""Where artifacts live: `<root>/<stage>/<key>/`, published in one rename, one lock per key.

The existence of the folder is the only "done" there is, so deleting it is always safe, and whatever dies before the
rename leaves nothing that anyone would mistake for a result.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmrepair.pipeline.artifact import KEY_FILE, MANIFEST_FILE, RECORD_FILE, Artifact, write_json
from llmrepair.pipeline.errors import Problem, RequestError, WorkError
from llmrepair.pipeline.keys import DigestCache, file_digest

_WAIT_BEFORE_TELLING_SECONDS = 0.2
_POLL_SECONDS = 0.2


class Store:
    """The artifacts below one folder.

    Raises:
        RequestError: `root` cannot be a folder that this process writes to.
    """

    def __init__(self, root: Path):
        self.root = root.absolute()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(
                Problem(f"no artifacts can be kept in `{root}`: {error.strerror}", "choose a folder with --runs DIR")
            ) from error
        self.digests = DigestCache(self.root / ".cache" / "digests.json")

    def find(self, stage: str, key: str) -> Artifact | None:
        path = self.root / stage / key
        return Artifact(stage, key, path) if path.is_dir() else None

    def artifacts(self) -> Iterator[Artifact]:
        """All finished artifacts, by stage and key."""
        for stage in sorted(self.root.iterdir()):
            if stage.is_dir() and not stage.name.startswith("."):
                for path in sorted(stage.iterdir()):
                    if path.is_dir() and not path.name.startswith("."):
                        yield Artifact(stage.name, path.name, path)

    def resolve(self, prefix: str) -> Artifact:
        """The one artifact whose key, or `stage/key`, starts with `prefix`.

        Raises:
            RequestError: none or several do.
        """
        matches = [a for a in self.artifacts() if a.key.startswith(prefix) or a.name.startswith(prefix)]
        if len(matches) == 1:
            return matches[0]
        if not matches:
            raise RequestError(Problem(f"no artifact has a key that starts with `{prefix}`", "list them with `llmrepair ls`"))
        names = ", ".join(artifact.name for artifact in matches[:5])
        raise RequestError(Problem(f"`{prefix}` is the start of {len(matches)} keys: {names}", "give more of the key"))

    def work_folder(self, stage: str, key: str) -> Path:
        """Where a long stage keeps its checkpoints until its artifact is published."""
        path = self.root / ".work" / f"{stage}-{key}"
        path.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def lock(self, stage: str, key: str, on_wait: Callable[[str], None]) -> Iterator[None]:
        """Holds the key's lock; calls `on_wait` once, with who holds it, if that takes a while."""
        from filelock import FileLock, Timeout

        path = self.root / ".locks" / f"{stage}-{key}.lock"
        path.parent.mkdir(exist_ok=True)
        owner = path.with_suffix(".owner")
        lock = FileLock(path)
        try:
            lock.acquire(timeout=_WAIT_BEFORE_TELLING_SECONDS, poll_interval=0.05)
        except Timeout:
            on_wait(_owner_text(owner))
            lock.acquire(poll_interval=_POLL_SECONDS)
        try:
            owner.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()

    @contextmanager
    def draft(self, stage: str, key: str) -> Iterator[Path]:
        """A folder beside the artifact's place to write it in; gone afterwards unless it was published.

        Call with the key's lock held: drafts that other processes left are then known to be dead and are removed.
        """
        parent = self.root / stage
        parent.mkdir(exist_ok=True)
        for dead in parent.glob(f".draft-{key}-*"):
            shutil.rmtree(dead)
        path = parent / f".draft-{key}-{os.getpid()}"
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def publish(self, draft: Path, stage: str, key: str, key_document: dict[str, Any], record: dict[str, Any]) -> Artifact:
        """Turns a draft into the artifact: key, record and manifest are added, all is flushed to disk, then renamed."""
        write_json(draft / KEY_FILE, key_document)
        write_json(draft / RECORD_FILE, record)
        write_json(draft / MANIFEST_FILE, {"files": _manifest(draft)})
        _flush(draft)
        path = self.root / stage / key
        try:
            draft.rename(path)
        except OSError as error:
            raise WorkError(
                Problem(f"`{path}` could not be written: {error.strerror}", "see whether something else stands there")
            ) from error
        _fsync(path.parent)
        shutil.rmtree(self.root / ".work" / f"{stage}-{key}", ignore_errors=True)
        return Artifact(stage, key, path)


def _owner_text(owner: Path) -> str:
    try:
        known = json.loads(owner.read_text())
    except (FileNotFoundError, json.JSONDecodeError):  # between taking the lock and signing for it
        return "another process"
    return f"process {known['pid']} on {known['host']}"


def _manifest(folder: Path) -> list[dict[str, Any]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        {"path": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in files
    ]


def _flush(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _fsync(path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
