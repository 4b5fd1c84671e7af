"""Where artifacts live: `<root>/<stage>/<key>/`, published in one rename, one lock per key.

The existence of the folder is the only "done" there is, so deleting it is always safe, and whatever dies before the
rename leaves nothing that anyone would mistake for a result. Beside the artifacts stand

    named/<name>/<link>      links to the results of a plan; what they lead to is kept by `gc`
    .work/<stage>-<key>/     log, progress and checkpoints of a stage that is running or was cut off
    .locks/<stage>-<key>     who computes a key
    .corrupt/                artifacts whose checksums were wrong
    .cache/                  digests of input files

The lock is filelock's `SoftFileLease`: a file made with O_EXCL that its holder touches every 2 s. It needs no fcntl, which
network file systems lack or, worse, only pretend to have. A lease is taken over at once when its process is known to be
dead, and from another machine when it was not touched for 60 s on the waiter's own clock. A holder that was only asleep
sees so within seconds of waking, and ends. Should it have come to its end by then, both have the same result, and the first to
publish wins.
"""

from __future__ import annotations

import _thread
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrepair.pipeline.artifact import KEY_FILE, MANIFEST_FILE, RECORD_FILE, Artifact, files_below, write_json
from llmrepair.pipeline.errors import Problem, RequestError, WorkError, disk_is_full, says_disk_is_full
from llmrepair.pipeline.keys import DigestCache, file_digest

if TYPE_CHECKING:
    from types import FrameType

    from filelock import LeaseCompromise, SoftFileLease

NAMED = "named"
USES_FILE = "uses.json"
DIGESTS = Path(".cache", "digests.json")

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-]*")
_KEY = re.compile(r"[0-9a-f]{3,64}")
_LEASE_SECONDS = 60.0
_BEATS = 30
"""In a lease: a holder that has lost it sees so after two."""
_POLL_SECONDS = 0.5


class Store:
    """The artifacts below one folder.

    Raises:
        RequestError: `root` cannot be a folder that this process writes to.
        WorkError: the disk is full.
    """

    def __init__(self, root: Path):
        self.root = root.absolute()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if says_disk_is_full(error):
                raise WorkError(disk_is_full("the folder of artifacts")) from error
            raise RequestError(
                Problem(f"no artifacts can be kept in `{root}`: {error.strerror}", "choose a folder with --runs DIR")
            ) from error
        self.digests = DigestCache(self.root / DIGESTS)

    def find(self, name: str) -> Artifact | None:
        """The finished artifact called `stage/key`."""
        stage, _, key = name.partition("/")
        if not (is_stage_name(stage) and _KEY.fullmatch(key)):
            return None
        path = self.root / stage / key
        return Artifact(stage, key, path) if path.is_dir() else None

    def find_document(self, name: str) -> dict[str, Any] | None:
        """What the key of the finished artifact `stage/key` was computed from."""
        artifact = self.find(name)
        return artifact.key_document if artifact is not None and artifact.is_readable else None

    def artifacts(self, on_damaged: Callable[[Artifact], None] = lambda artifact: None) -> Iterator[Artifact]:
        """All finished artifacts that can be read, by stage and key.

        Args:
            on_damaged: told of each of the others.
        """
        for artifact in self.folders():
            if artifact.is_readable:
                yield artifact
            else:
                on_damaged(artifact)

    def folders(self) -> Iterator[Artifact]:
        """All finished artifacts, whatever is in them, by stage and key."""
        for stage in sorted(entry.name for entry in os.scandir(self.root) if is_stage_name(entry.name) and entry.is_dir()):
            folder = self.root / stage
            for key in sorted(entry.name for entry in os.scandir(folder) if _KEY.fullmatch(entry.name) and entry.is_dir()):
                yield Artifact(stage, key, folder / key)

    def resolve(self, prefix: str) -> Artifact:
        """The one artifact whose key, or `stage/key`, starts with `prefix`.

        Raises:
            RequestError: none or several do.
            WorkError: it cannot be read.
        """
        artifact = self.resolve_folder(prefix)
        if not artifact.is_readable:
            hint = "put it aside with `llmrepair verify`, and what needs it makes it again"
            raise WorkError(Problem(f"`{artifact.name}` is damaged: its key or record cannot be read", hint))
        return artifact

    def resolve_folder(self, prefix: str) -> Artifact:
        """The same, whatever is in it."""
        matches = [a for a in self.folders() if a.key.startswith(prefix) or a.name.startswith(prefix)]
        if len(matches) == 1:
            return matches[0]
        if not matches:
            raise RequestError(Problem(f"no artifact has a key that starts with `{prefix}`", "list them with `llmrepair ls`"))
        names = ", ".join(artifact.name for artifact in matches[:5])
        raise RequestError(Problem(f"`{prefix}` is the start of {len(matches)} keys: {names}", "give more of the key"))

    def work_folder(self, name: str) -> Path:
        """Where a stage keeps its log, progress and checkpoints until its artifact `stage/key` is published."""
        return self.root / ".work" / name.replace("/", "-")

    @contextlib.contextmanager
    def lock(self, name: str, on_wait: Callable[[str], None]) -> Iterator[None]:
        """Holds the lock of `stage/key`; calls `on_wait` with who holds it, again and again, until it is free.

        Raises:
            WorkError: this process was asleep for so long that another one took the lock over.
        """
        from filelock import Timeout

        taken_over = threading.Event()

        def end(loss: LeaseCompromise) -> None:
            if loss.reason == "owner-changed":
                taken_over.set()
                _thread.interrupt_main()

        lease = self._lease(name, end)
        while True:
            try:
                lease.acquire(timeout=_POLL_SECONDS, poll_interval=0.1)
                break
            except Timeout:
                self.need_room()
                owner = lease.owner
                on_wait(f"process {owner.pid} on {owner.hostname.partition('?')[0]}" if owner else "another process")
        try:
            with _interruptible(taken_over):
                yield
        except KeyboardInterrupt:
            if not taken_over.is_set():
                raise
            hint = "run the command again: it waits for that one"
            raise WorkError(Problem(f"`{name}` was taken over by another process while this one was asleep", hint)) from None
        finally:
            lease.release()

    def need_room(self) -> None:
        """Fails where nothing can be written: on a full disk nobody can take over the lock of the dead, and would wait for it
        in silence.
        """
        probe = self.root / ".locks" / f".probe-{secrets.token_hex(4)}"
        try:
            probe.parent.mkdir(exist_ok=True)
            probe.write_text("room")
        finally:
            with contextlib.suppress(OSError):  # there may be no folder
                probe.unlink()

    def _lease(self, name: str, on_compromise: Callable[[LeaseCompromise], None] | None = None) -> SoftFileLease:
        from filelock import SoftFileLease

        folder = self.root / ".locks"
        folder.mkdir(exist_ok=True)
        return SoftFileLease(
            folder / name.replace("/", "-"),
            lease_duration=_LEASE_SECONDS,
            heartbeat_interval=_LEASE_SECONDS / _BEATS,
            on_compromise=on_compromise,
        )

    @contextlib.contextmanager
    def lock_if_free(self, name: str) -> Iterator[bool]:
        """Whether nobody computes `stage/key`, and nobody will before this is left.

        On a full disk nobody can begin to, and a lock that is there counts as held: `gc` works there too.
        """
        from filelock import Timeout

        lease = self._lease(name)
        try:
            lease.acquire(timeout=0)
        except Timeout:
            yield False
            return
        except OSError as error:
            if not says_disk_is_full(error):
                raise
            yield not Path(lease.lock_file).exists()
            return
        try:
            yield True
        finally:
            lease.release()

    def in_use(self) -> set[str]:
        """Names of the artifacts that are being computed, and of those that are being read for it."""
        names: set[str] = set()
        for work in (self.root / ".work").glob("*"):
            name = "/".join(work.name.rsplit("-", 1))
            with self.lock_if_free(name) as free:
                if not free:
                    names |= {name, *_read_list(work / USES_FILE)}
        return names

    @contextlib.contextmanager
    def draft(self, name: str) -> Iterator[Path]:
        """A folder beside the artifact's place to write it in; gone afterwards unless it was published."""
        stage, _, key = name.partition("/")
        parent = self.root / stage
        parent.mkdir(exist_ok=True)
        path = parent / f".draft-{key}-{secrets.token_hex(4)}"
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def clear_dead(self) -> None:
        """Removes what processes that died left half written, and what was left half removed."""
        for draft in self.root.glob("*/.draft-*"):
            _, key, _ = draft.name.removeprefix(".").split("-")
            with self.lock_if_free(f"{draft.parent.name}/{key}") as free:
                if free:
                    shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(self.root / ".trash", ignore_errors=True)

    def publish(self, draft: Path, name: str, key_document: dict[str, Any], record: dict[str, Any]) -> Artifact:
        """Turns a draft into the artifact: key, record and manifest are added, all is flushed to disk, then renamed."""
        size = sum(path.stat().st_size for path in files_below(draft))
        write_json(draft / KEY_FILE, key_document)
        write_json(draft / RECORD_FILE, record | {"size_bytes": size})
        write_json(draft / MANIFEST_FILE, {"files": _manifest(draft)})
        _flush(draft)
        path = self.root / name
        try:
            draft.rename(path)
        except OSError as error:
            if self.find(name) is None:
                raise WorkError(
                    Problem(f"`{path}` could not be written: {error.strerror}", "see whether something else stands there")
                ) from error
            # Another process thought this one dead and has come to the same result: see the module's first lines.
        _fsync(path.parent)
        _fsync(self.root)
        shutil.rmtree(self.work_folder(name), ignore_errors=True)
        return Artifact(path.parent.name, path.name, path)

    def remove(self, artifact: Artifact) -> None:
        """Removes an artifact, out of sight first: an artifact that is half removed must not look finished."""
        with contextlib.suppress(FileNotFoundError):  # another process was quicker
            self._move(artifact.path, self.root / ".trash" / f"{artifact.stage}-{artifact.key}-{secrets.token_hex(4)}")
        shutil.rmtree(self.root / ".trash", ignore_errors=True)

    def quarantine(self, artifact: Artifact) -> Path | None:
        """Moves a damaged artifact to where it counts as missing and can still be looked at.

        None if another process has already done so, and may have made it again: so the damage is looked for once more.
        """
        place = self.root / ".corrupt" / f"{artifact.stage}-{artifact.key}-{secrets.token_hex(4)}"
        with self.lock_if_free(artifact.name) as free:
            if not free or not artifact.path.exists() or artifact.damage() is None:
                return None
            self._move(artifact.path, place)
        return place

    def quarantined(self, name: str) -> list[Path]:
        """Damaged artifacts `stage/key` that were put aside."""
        return sorted((self.root / ".corrupt").glob(f"{name.replace('/', '-')}-*"))

    @staticmethod
    def _move(path: Path, to: Path) -> None:
        to.parent.mkdir(exist_ok=True)
        path.rename(to)
        _fsync(path.parent)


@contextlib.contextmanager
def _interruptible(taken_over: threading.Event) -> Iterator[None]:
    """Lets `interrupt_main` end this process where SIGINT is ignored, as it is in what a shell script starts with `&`."""
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if not ignored or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        if taken_over.is_set():
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def is_stage_name(name: str) -> bool:
    return _STAGE_NAME.fullmatch(name) is not None and name != NAMED


def _read_list(path: Path) -> list[str]:
    try:
        names: list[str] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):  # the stage has only begun
        return []
    return names


def _manifest(folder: Path) -> list[dict[str, Any]]:
    return [
        {"path": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in files_below(folder)
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
