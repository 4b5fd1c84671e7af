from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.garbage import NamedRun, free, garbage, made_from, named_runs
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.units import age_text, bytes_text, parse_bytes, parse_seconds
from tests.pipeline.toy import toy


@pytest.fixture
def made(runner: Runner, log: Path) -> list[Artifact]:
    """1 --> 2 --> 3, and 4 alone; made 4, 3, 2 and 1 days ago, 1000 bytes and a little each."""
    first = toy(log, 1)
    second = toy(log, 2, first)
    artifacts = [runner.pull(stage).artifact for stage in (first, second, toy(log, 3, second), toy(log, 4))]
    for number, artifact in enumerate(artifacts):
        then = time.time() - (4 - number) * 86400
        os.utime(artifact.path, (then, then))
    return artifacts


def names(runner: Runner, **options: float) -> list[str]:
    return [each.name for each in garbage(runner.store, **options)]  # type: ignore[arg-type]


def test_what_no_named_run_leads_to_goes(runner: Runner, made: list[Artifact]) -> None:
    assert names(runner) == [artifact.name for artifact in made]
    NamedRun(runner.store, "mine").add("two", made[1].name)
    assert names(runner) == [made[2].name, made[3].name]


def test_older_than(runner: Runner, made: list[Artifact]) -> None:
    assert names(runner, older_than_seconds=2.5 * 86400) == [made[0].name, made[1].name]


def test_down_to_a_size(runner: Runner, made: list[Artifact]) -> None:
    sizes = {each.name: each.size_bytes for each in garbage(runner.store)}
    assert names(runner, down_to_bytes=sum(sizes.values())) == []
    assert names(runner, down_to_bytes=sum(sizes.values()) - 1) == [made[0].name]
    assert names(runner, down_to_bytes=sizes[made[2].name] + sizes[made[3].name]) == [made[0].name, made[1].name]
    assert names(runner, down_to_bytes=0) == [artifact.name for artifact in made]


def test_what_is_in_use_stays(runner: Runner, made: list[Artifact]) -> None:
    work = runner.store.work_folder("toy/abc")
    work.mkdir(parents=True)
    (work / "uses.json").write_text(f'["{made[3].name}"]')
    with runner.store.lock("toy/abc", lambda owner: None):
        assert names(runner) == [artifact.name for artifact in made[:3]]
    assert ".work/toy-abc" in names(runner)


def test_freeing_removes_it(runner: Runner, made: list[Artifact]) -> None:
    runner.store.work_folder("toy/abc").mkdir(parents=True)
    (made[3].path / "total.json").write_text("7")
    runner.store.quarantine(made[3])
    NamedRun(runner.store, "mine").add("one", made[0].name)
    free(runner.store, garbage(runner.store))
    assert list(runner.store.artifacts()) == [made[0]]
    assert not any((runner.store.root / ".work").iterdir())
    assert not any((runner.store.root / ".corrupt").iterdir())


def test_names_are_links_that_move_with_the_folder(runner: Runner, made: list[Artifact], tmp_path: Path) -> None:
    NamedRun(runner.store, "mine").add("number 1", made[0].name)
    named = NamedRun(runner.store, "mine")
    named.add("number 2", made[1].name)
    named.add("number: 3 & more", made[2].name)
    assert named_runs(runner.store) == {"mine": sorted([made[1].name, made[2].name])}
    moved = runner.store.root.rename(tmp_path / "elsewhere")
    assert (moved / "named" / "mine" / f"toy-number-3-more-{made[2].key[:8]}" / "total.json").read_text() == "6"


def test_children_of_children(runner: Runner, made: list[Artifact]) -> None:
    assert made_from(runner.store, made[0].name) == [made[1], made[2]]
    assert made_from(runner.store, made[3].name) == []


@pytest.mark.parametrize(
    "text, value", [("10GB", 10**10), ("1.5 MB", 1_500_000), ("7B", 7), ("10", None), ("x", None), ("3d", None)]
)
def test_sizes(text: str, value: int | None) -> None:
    assert parse_bytes(text) == value


@pytest.mark.parametrize("text, value", [("30d", 2_592_000), ("12h", 43200), ("2w", 1_209_600), ("3x", None), ("-1d", None)])
def test_ages(text: str, value: float | None) -> None:
    assert parse_seconds(text) == value


def test_sizes_and_ages_as_text() -> None:
    assert [bytes_text(count) for count in (0, 999, 1360, 13_600_000)] == ["0 B", "999 B", "1.36 kB", "13.6 MB"]
    assert [age_text(seconds) for seconds in (5, 90, 7200, 200_000)] == ["5 s", "2 m", "2 h", "2 d"]
