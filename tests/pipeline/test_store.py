from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmrepair.pipeline import store as store_module
from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.errors import RequestError, WorkError
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.store import Store
from tests.pipeline.toy import toy


def test_waiting_is_told_with_who_holds_the_lock(tmp_path: Path) -> None:
    store, told, held, release = Store(tmp_path / "runs"), [], threading.Event(), threading.Event()

    def hold() -> None:
        with store.lock("toy/abc", lambda owner: None):
            held.set()
            release.wait(10)

    def on_wait(owner: str) -> None:
        told.append(owner)
        release.set()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    with store.lock("toy/abc", on_wait):
        pass
    thread.join()
    assert len(told) == 1
    assert "process " in told[0]


def test_drafts_of_the_dead_are_removed(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    dead = store.root / "toy" / ".draft-abc-1"
    dead.mkdir(parents=True)
    (dead / "half").write_text("done")
    store.clear_dead()
    assert not dead.exists()
    assert list(store.artifacts()) == []


def test_keys_are_found_by_their_start(runner: Runner, log: Path) -> None:
    artifacts = [runner.pull(toy(log, number)).artifact for number in range(3)]
    assert runner.store.resolve(artifacts[0].key[:12]) == artifacts[0]
    assert runner.store.resolve(artifacts[1].name) == artifacts[1]
    with pytest.raises(RequestError, match="no artifact"):
        runner.store.resolve("zzz")
    with pytest.raises(RequestError, match="start of 3 keys"):
        runner.store.resolve("toy/")


def test_a_store_that_cannot_be_written_is_a_wrong_request(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="no artifacts can be kept"):
        Store(tmp_path / "file" / "runs")


@pytest.mark.parametrize(
    "name", ["../toy/abc", "toy/../abc", "toy/abc/..", "named/abc", ".work/abc", "toy", "/etc/abc", "toy/xyz"]
)
def test_names_that_lead_elsewhere_find_nothing(tmp_path: Path, name: str) -> None:
    for folder in ("toy/abc", "named/abc", ".work/abc", "abc"):
        (tmp_path / "runs" / folder).mkdir(parents=True)
    assert Store(tmp_path / "runs" / "toy").find(name) is None
    assert Store(tmp_path / "runs").find(name) is None


def test_hidden_folders_and_named_runs_are_no_artifacts(runner: Runner, log: Path) -> None:
    artifact = runner.pull(toy(log, 1)).artifact
    for folder in ("named/toy/abc", ".corrupt/toy-abc", ".work/toy-abc", "toy/.draft-abc-12345678", "toy/not a key"):
        (runner.store.root / folder).mkdir(parents=True)
    assert [each.name for each in runner.store.artifacts()] == [artifact.name]


def test_whoever_publishes_second_takes_what_is_there(runner: Runner, log: Path) -> None:
    artifact = runner.pull(toy(log, 1)).artifact
    with runner.store.draft(artifact.name) as draft:
        assert runner.store.publish(draft, artifact.name, artifact.key_document, artifact.record) == artifact
    assert [path.name for path in artifact.path.parent.iterdir()] == [artifact.key]


def _hold(root: Path, name: str) -> None:
    with Store(root).lock(name, lambda owner: None):
        (root / "held").touch()
        time.sleep(60)


def _dead_holder(root: Path, name: str) -> None:
    process = multiprocessing.get_context("fork").Process(target=_hold, args=(root, name))
    process.start()
    while not (root / "held").exists():
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path: Path) -> None:
    _dead_holder(tmp_path, "toy/abc")
    started = time.monotonic()
    with Store(tmp_path).lock("toy/abc", lambda owner: None):
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN], ids=["in a terminal", "in a script, with &"])
def test_who_lost_the_lock_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handler: signal.Handlers) -> None:
    monkeypatch.setattr(store_module, "_LEASE_SECONDS", 0.3)
    before = signal.signal(signal.SIGINT, handler)
    try:
        with (
            pytest.raises(WorkError, match="taken over by another process"),
            Store(tmp_path).lock("toy/abc", lambda owner: None),
        ):
            (tmp_path / ".locks" / "toy-abc").unlink()
            with Store(tmp_path).lock_if_free("toy/abc") as free:
                assert free
                time.sleep(5)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_lock_needs_no_fcntl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    for name in ("flock", "lockf", "fcntl"):
        monkeypatch.setattr(fcntl, name, no_locks)
    with Store(tmp_path).lock("toy/abc", lambda owner: None), Store(tmp_path).lock_if_free("toy/abc") as free:
        assert not free
    with Store(tmp_path).lock_if_free("toy/abc") as free:
        assert free


def test_what_is_computed_and_what_it_reads_is_in_use(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.work_folder("toy/abc").mkdir(parents=True)
    (store.work_folder("toy/abc") / "uses.json").write_text('["toy/def"]')
    assert store.in_use() == set()
    with store.lock("toy/abc", lambda owner: None):
        assert store.in_use() == {"toy/abc", "toy/def"}


def test_drafts_of_the_living_stay(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.lock("toy/abc", lambda owner: None), store.draft("toy/abc") as draft:
        Store(tmp_path).clear_dead()
        assert draft.exists()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a missing file": lambda path: (path / "total.json").unlink(),
    "a file too many": lambda path: (path / "extra").touch(),
    "a longer file": lambda path: (path / "total.json").write_text("10"),
    "no manifest": lambda path: (path / "manifest.json").unlink(),
    "no JSON": lambda path: (path / "manifest.json").write_text("{"),
    "a manifest of something else": lambda path: (path / "manifest.json").write_text('{"files": [1]}'),
    "a link": lambda path: (
        (path / "total.json").rename(path.parent.parent / "x"),
        (path / "total.json").symlink_to("../../x"),
    ),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_damage_is_found(runner: Runner, log: Path, damage: str) -> None:
    artifact = runner.pull(toy(log, 1)).artifact
    assert artifact.damage() is None
    DAMAGES[damage](artifact.path)
    assert Artifact(artifact.stage, artifact.key, artifact.path).damage() is not None


def test_an_artifact_under_another_key_is_damage(runner: Runner, log: Path) -> None:
    artifact = runner.pull(toy(log, 1)).artifact
    other = artifact.path.with_name("0123456789abcdef")
    artifact.path.rename(other)
    assert Artifact("toy", other.name, other).damage() == "key.json is that of another key"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_flipped_byte_is_found(runner: Runner, log: Path, data: st.DataObject) -> None:
    artifact = runner.pull(toy(log, 1)).artifact
    payload = sorted(path for path in artifact.path.iterdir() if path.name != "manifest.json")
    path = data.draw(st.sampled_from(payload))
    content = path.read_bytes()
    place, bits = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(1, 255))
    path.write_bytes(content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :])
    try:
        assert Artifact(artifact.stage, artifact.key, artifact.path).damage() is not None
    finally:
        path.write_bytes(content)


def test_what_another_process_put_aside_and_made_again_is_left_alone(runner: Runner, log: Path) -> None:
    artifact = runner.pull(toy(log, 1)).artifact
    assert runner.store.quarantine(artifact) is None
    (artifact.path / "total.json").write_text("7")
    with runner.store.lock(artifact.name, lambda owner: None):
        assert runner.store.quarantine(artifact) is None
    assert runner.store.quarantine(artifact) is not None
    assert runner.store.quarantine(artifact) is None


def test_a_removed_artifact_is_gone_in_one_step(runner: Runner, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = runner.pull(toy(log, 1)).artifact
    monkeypatch.setattr("shutil.rmtree", lambda *arguments, **options: None)  # killed before it could remove anything
    runner.store.remove(artifact)
    monkeypatch.undo()
    assert runner.store.find(artifact.name) is None
    runner.store.clear_dead()
    assert not (runner.store.root / ".trash").exists()


def full_disk(*arguments: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_on_a_full_disk_a_lock_is_free_if_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    (tmp_path / ".locks").mkdir()
    monkeypatch.setattr("filelock.SoftFileLease.acquire", full_disk)
    with store.lock_if_free("toy/abc") as free:
        assert free
    (tmp_path / ".locks" / "toy-abc").touch()
    with store.lock_if_free("toy/abc") as free:
        assert not free


def test_on_a_full_disk_nobody_waits_for_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(tmp_path).lock("toy/abc", lambda owner: None):
        monkeypatch.setattr(Path, "write_text", full_disk)
        with pytest.raises(OSError, match="No space left"), Store(tmp_path).lock("toy/abc", lambda owner: None):
            pytest.fail("the lock is held")
