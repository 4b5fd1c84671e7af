"""Another version of a library is another key, unless `--any-version` says that it does not matter."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from llmrepair.pipeline.progress import Reporter
from llmrepair.pipeline.reasons import Reasons
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.stage import Runtime
from llmrepair.pipeline.store import Store
from llmrepair.pipeline.versions import version_of, versions_of
from tests.pipeline.toy import Toy, executions, name_of, toy

LIBRARY = ("numbers-library",)
Install = Callable[[str | None], None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a version of the library that toys compute with."""
    real = importlib.metadata.version

    def set_version(version: str | None) -> None:
        def version_now(name: str) -> str:
            if name != LIBRARY[0]:
                return real(name)
            if version is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return version

        version_of.cache_clear()
        monkeypatch.setattr(importlib.metadata, "version", version_now)

    set_version("0.4.13")
    return set_version


@pytest.fixture
def lenient(runner: Runner) -> Runner:
    """Another one on the same store, with `--any-version`."""
    return Runner(Store(runner.store.root), Runtime.model_validate({"any_version": True}), Reporter(quiet=True))


def chain(log: Path, last: int = 3) -> Toy:
    return toy(log, last, two(log))


def two(log: Path) -> Toy:
    return toy(log, 2, toy(log, 1, uses=LIBRARY), uses=LIBRARY)


def test_a_version_is_in_the_key_and_told_in_words(runner: Runner, log: Path, install: Install) -> None:
    key = name_of(runner, toy(log, 1, uses=LIBRARY))
    assert runner.pull(toy(log, 1, uses=LIBRARY)).artifact.key_document["libraries"] == {LIBRARY[0]: "0.4.13"}
    install("0.4.14")
    assert name_of(runner, toy(log, 1, uses=LIBRARY)) != key
    graph = runner.graph([toy(log, 1, uses=LIBRARY)])
    assert Reasons(runner.store, graph).of(next(iter(graph))) == ["`numbers-library` 0.4.13 -> 0.4.14"]
    assert not runner.pull(toy(log, 1, uses=LIBRARY)).cached
    install(None)
    assert versions_of(LIBRARY) == {LIBRARY[0]: None}


@pytest.mark.parametrize("build", ["+cpu", "+cu128", "+rocm6.4"])
def test_the_device_that_a_library_was_built_for_does_not_count(install: Install, build: str) -> None:
    install(f"2.13.0{build}")
    assert version_of(LIBRARY[0]) == "2.13.0"
    install("2.13.0+ours.3")
    assert version_of(LIBRARY[0]) == "2.13.0+ours.3"


def test_any_version_reuses_a_chain_that_differs_in_versions_alone(
    runner: Runner, lenient: Runner, log: Path, install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    old = runner.pull(chain(log)).artifact
    install("0.4.14")
    lenient.reporter = Reporter()
    outcome = lenient.pull(chain(log))
    assert (outcome.cached, outcome.artifact) == (True, old)
    assert executions(log) == ["1", "2", "3"]
    assert "in spite of other versions: `numbers-library` 0.4.13 -> 0.4.14" in " ".join(capsys.readouterr().err.split())
    assert not runner.pull(chain(log)).cached


def test_what_is_new_is_made_from_what_is_reused_and_its_key_says_so(
    runner: Runner, lenient: Runner, log: Path, install: Install
) -> None:
    runner.pull(chain(log))
    old = name_of(runner, two(log))
    install("0.4.14")
    made = lenient.pull(chain(log, last=4)).artifact
    assert executions(log) == ["1", "2", "3", "4"]
    assert made.inputs == {"0": old}


def test_any_version_takes_what_fits_first(runner: Runner, lenient: Runner, log: Path, install: Install) -> None:
    runner.pull(chain(log))
    install("0.4.14")
    new = runner.pull(two(log)).artifact
    assert lenient.pull(two(log)).artifact == new
    assert lenient.pull(chain(log)).cached  # although the one below it is there in both versions
    assert not lenient.pull(chain(log, last=5)).cached


def test_any_version_needs_no_inputs_of_what_is_reused(runner: Runner, lenient: Runner, log: Path, install: Install) -> None:
    runner.pull(chain(log))
    shutil.rmtree(runner.store.root / name_of(runner, toy(log, 1, uses=LIBRARY)))
    install("0.4.14")
    assert lenient.pull(chain(log)).cached


def test_a_damaged_artifact_of_another_version_is_made_with_the_one_that_is_there(
    runner: Runner, lenient: Runner, log: Path, install: Install
) -> None:
    old = runner.pull(two(log)).artifact
    inputs = old.inputs
    install("0.4.14")
    (old.path / "total.json").write_text("7")
    made = lenient.pull(two(log)).artifact
    assert (made.metrics, made.inputs) == ({"total": 3}, inputs)
    assert made.key != old.key
    assert executions(log) == ["1", "2", "2"]


@pytest.mark.parametrize("change", [{"number": 9}, {"upstream": True}])
def test_any_version_is_about_nothing_but_versions(
    runner: Runner, lenient: Runner, log: Path, install: Install, change: dict[str, object]
) -> None:
    runner.pull(toy(log, 1, uses=LIBRARY))
    install("0.4.14")
    asked = toy(log, 9, uses=LIBRARY) if "number" in change else toy(log, 1, toy(log, 7), uses=LIBRARY)
    assert not lenient.pull(asked).cached
