from __future__ import annotations

import ast
import hashlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrepair.pipeline.code import code_digests, syntax_digest_text
from llmrepair.pipeline.keys import DigestCache, canonical_json, document_key, file_digest

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)
DOCUMENTS = st.dictionaries(st.text(), VALUES, max_size=5)


def shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


@given(DOCUMENTS)
def test_order_of_a_dict_does_not_change_the_key(document: dict[str, Any]) -> None:
    assert document_key(shuffled(document)) == document_key(document)


@given(DOCUMENTS, DOCUMENTS)
def test_documents_share_a_key_only_if_they_are_the_same_json(one: dict[str, Any], other: dict[str, Any]) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (document_key(one) == document_key(other)) == same


@pytest.mark.parametrize(
    "one, other", [({"a1": 2}, {"a": 12}), ({"a": 1}, {"a": "1"}), ({"a": 1}, {"a": True}), ({"a": 1}, {"a": 1.0})]
)
def test_what_looks_alike_has_its_own_key(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert document_key(one) != document_key(other)


def test_what_json_would_change_is_refused() -> None:
    with pytest.raises(TypeError):
        canonical_json({1: "a"})
    with pytest.raises(TypeError):
        canonical_json({"a": {1, 2}})
    with pytest.raises(ValueError, match="nan"):
        canonical_json({"a": float("nan")})


def digest_of(source: str) -> str:
    return syntax_digest_text(ast.parse(source))


def test_comments_docstrings_and_layout_do_not_count_as_code() -> None:
    plain = "def f(x):\n    return x + 1\n"
    assert digest_of(
        '"""A module."""\n\n# why\ndef f(x):\n    """Adds one."""\n    return (x +\n        1)  # so\n'
    ) == digest_of(plain)
    assert digest_of("def f(x):\n    return x + 2\n") != digest_of(plain)
    assert digest_of("def f(x):\n    return x - 1\n") != digest_of(plain)


def test_a_string_that_is_no_docstring_counts() -> None:
    assert digest_of("x = 1\n'a'\n") != digest_of("x = 1\n'b'\n")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / f"package_{tmp_path.name}".replace("-", "_")
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "entry.py").write_text(
        "from typing import TYPE_CHECKING\n"
        f"if TYPE_CHECKING:\n    from {folder.name} import types_only\n"
        f"def run():\n    from {folder.name}.helper import value\n    return value\n"
    )
    (folder / "helper.py").write_text(f"import json\nfrom {folder.name} import deep\nvalue = 1\n")
    (folder / "deep.py").write_text("x = 1\n")
    (folder / "types_only.py").write_text("y = 1\n")
    (folder / "stranger.py").write_text("z = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_code_digests_follow_imports_inside_functions_but_not_those_of_type_checkers(package: Path) -> None:
    digests = code_digests((f"{package.name}.entry",))
    assert {name.rpartition(".")[2] for name in digests} == {package.name, "entry", "helper", "deep"}


HOUR = 3600 * 10**9


def age(file: Path) -> os.stat_result:
    """Sets a modification time long ago."""
    before = time.time_ns() - HOUR
    os.utime(file, ns=(before, before))
    return file.stat()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that was just written was written an hour ago."""
    monkeypatch.setattr("llmrepair.pipeline.keys.time.time_ns", lambda now=time.time_ns: now() + HOUR)


@pytest.mark.usefixtures("later")
def test_digest_cache_sees_a_change_and_reads_an_old_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    cache = DigestCache(tmp_path / "digests.json")
    first = cache.digest(file)
    assert first == file_digest(file)

    with monkeypatch.context() as patch:
        patch.setattr("llmrepair.pipeline.keys.file_digest", lambda path: pytest.fail("read again"))
        assert DigestCache(tmp_path / "digests.json").digest(file) == first

    file.write_bytes(b"two")  # the same size
    assert cache.digest(file) == file_digest(file) != first


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("place", [0, 1 << 21, -1])
def test_digest_cache_sees_other_content_behind_preserved_stamps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """As of `cp -p` over a file, and of a disk image that was put back, which has preserved even the inode's own time."""
    file = tmp_path / "weights"
    content = bytearray(1 << 22)
    file.write_bytes(content)
    status = age(file)
    cache = DigestCache(tmp_path / "digests.json")
    first = cache.digest(file)
    content[place] = 1
    with file.open("r+b") as same_inode:
        same_inode.write(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    monkeypatch.setattr(Path, "stat", lambda self, **options: status)
    assert DigestCache(tmp_path / "digests.json").digest(file) == file_digest(file) != first


@pytest.mark.usefixtures("later")
def test_digest_cache_sees_the_inode_time_where_the_sample_does_not_differ(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    content = bytearray(1 << 22)
    file.write_bytes(content)
    status = age(file)
    cache = DigestCache(tmp_path / "digests.json")
    first = cache.digest(file)
    content[100_000] = 1  # between two blocks of the sample
    time.sleep(0.02)  # a tick of the file system's clock
    with file.open("r+b") as same_inode:
        same_inode.write(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert cache.digest(file) == file_digest(file) != first


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 250])
def test_digest_of_a_file_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr("llmrepair.pipeline.keys._BLOCK_BYTES", 100)
    (tmp_path / "weights").write_bytes(content := bytes(range(size)))
    assert file_digest(tmp_path / "weights") == hashlib.sha256(content).hexdigest()


@pytest.mark.usefixtures("later")
def test_digest_cache_does_something_else_while_it_reads_what_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmrepair.pipeline.keys._LONG_BYTES", 6)
    files = [tmp_path / name for name in ("one", "two", "three")]
    for file in files:
        file.write_text(file.name)
    cache, done = DigestCache(tmp_path / "digests.json"), threading.Event()
    expected = [file_digest(file) for file in files]
    monkeypatch.setattr("llmrepair.pipeline.keys.file_digest", lambda path: done.wait(60) and file_digest(path))
    cache.while_reading = done.set
    assert cache.digests([*files, files[0]]) == [*expected, expected[0]]

    cache.while_reading = lambda: pytest.fail("nothing is read")
    assert cache.digests(files[::-1]) == expected[::-1]
    files[0].write_text("new")  # which is small by itself
    cache.digest(files[0])


@pytest.mark.parametrize("text", ["[]", "{", "\xff"])
def test_a_digest_cache_that_cannot_be_read_is_only_slower(tmp_path: Path, text: str) -> None:
    (tmp_path / "digests.json").write_text(text, encoding="latin-1")
    assert DigestCache(tmp_path / "digests.json").digest(tmp_path / "digests.json")


def test_digest_cache_does_not_trust_a_file_that_was_just_written(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    status = age(file)
    cache = DigestCache(tmp_path / "digests.json")
    first = cache.digest(file)
    assert cache.files() == []
    file.write_bytes(b"two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert cache.digest(file) != first


@pytest.mark.usefixtures("later")
def test_reading_all_of_an_input_finds_what_the_sample_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights"
    file.write_bytes(bytes(1 << 22))
    cache = DigestCache(tmp_path / "digests.json")
    first = cache.digest(file)
    assert cache.verify(file) is None
    status = file.stat()
    with file.open("r+b") as same_inode:
        same_inode.seek(100_000)
        same_inode.write(b"x")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", lambda self, **options: status)
        assert cache.digest(file) == first  # a disk that was put back
        assert cache.verify(file) == first
    assert cache.digest(file) == file_digest(file) != first
