"""The index and the groups of lm-eval's tasks, against lm-eval's own, which takes seconds to build."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.group import Group as TheirGroup
from lm_eval.config.group import GroupConfig
from lm_eval.tasks import TaskManager, _factory
from lm_eval.tasks._index import Kind

from llmrepair.stages.evaluate.tasks import definitions
from llmrepair.stages.evaluate.tasks.definitions import DefinitionError, Definitions, Group, Task, index_of, plain_yaml

IRREGULAR = (  # groups in groups, tags in groups, settings of groups, definitions in place
    "mmlu mmlu_pro glue blimp ai2_arc agieval bbh tinyBenchmarks leaderboard openllm pawsx scrolls flan_held_in afrobench "
    "lm_eval_custom med_concepts_qa mmlusr cmmlu minerva_math pythia super-glue-lm-eval-v1 basque_bench metabench"
).split()


class StandIn:
    """In the place of lm-eval's task objects, which read their data when they are made."""

    def __init__(self, config: dict[str, Any]):
        self.config, self.task_name = config, config["task"]


@pytest.fixture(scope="module")
def manager() -> TaskManager:
    return TaskManager()


def test_it_names_what_lm_eval_names(manager: TaskManager) -> None:
    index = index_of(None)
    assert index.keys() == manager.task_index.keys()
    for name, entry in manager.task_index.items():
        if entry.kind == Kind.TAG:
            assert set(index[name]) == entry.tags, name  # type: ignore[arg-type]
        else:
            assert index[name] == entry.yaml_path, name


def test_reading_the_index_takes_no_time() -> None:
    definitions._stock_index.cache_clear()
    start = time.perf_counter()
    index_of(None)
    assert time.perf_counter() - start < 3  # a third of a second on an idle machine


def test_groups_and_tags_expand_as_in_lm_eval(manager: TaskManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_factory, "load_yaml", lambda path, resolve_func: plain_yaml(Path(path)))
    monkeypatch.setattr(_factory, "ConfigurableTask", StandIn)
    factory = manager._factory
    monkeypatch.setattr(factory, "_build_task", lambda entry, overrides: StandIn(factory._load_full_config(entry, overrides)))
    source = Definitions(index_of(None), plain_yaml)
    collections = [name for name, entry in manager.task_index.items() if entry.kind in (Kind.GROUP, Kind.TAG)]
    names = {*collections[::40], *(name for name in IRREGULAR if name in manager.task_index)}
    assert len(names) > 50
    for name in names:
        theirs = factory.build(manager.task_index[name], registry=dict(manager.task_index))
        ours = source.of(name)
        assert [shape(each) for each in ours] == [shape(each) for each in (theirs if isinstance(theirs, list) else [theirs])]


def shape(each: Any) -> Any:
    if isinstance(each, Group):
        return each.name, [shape(child) for child in {child.name: child for child in each.children}.values()]
    if isinstance(each, TheirGroup):
        return each.name, [shape(child) for child in each]
    name = each.name if isinstance(each, Task) else each.task_name
    structure = {"metadata", "tag", "group", "task_list"}
    return name, {key: value for key, value in each.config.items() if key not in structure}


def test_the_fields_of_a_group_are_lm_evals() -> None:
    assert set(GroupConfig.__dataclass_fields__) == definitions._GROUP_FIELDS


def test_names_in_all_notations(tmp_path: Path) -> None:
    files = {
        "template": '"tag": [one, "two"]\n',
        "a.yaml": "include: template\ntask: a\n",
        "b.yaml": "task: 'b-1'  # a comment\ntag:\n  - two\n  - three\ninclude: [template]\n",
        "sub/c.yaml": "group: c\ntag: two\ntask:\n- a\n- b-1\n",
        "sub/d.yaml": "task: a\n",
        "e.yaml": "class: !function e.E\ngroup: f\ntask: e\n",
        "f.yaml": "dataset_path: f\n",
        "__pycache__/g.yaml": "task: g\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    ours = {name: value for name, value in index_of(tmp_path).items() if index_of(None).get(name) != value}
    paths = {"a": "a.yaml", "b-1": "b.yaml", "c": "sub/c.yaml", "e": "e.yaml"}
    tags = {"one": ("a",), "two": ("a", "b-1"), "three": ("b-1",)}
    assert ours == {name: tmp_path / path for name, path in paths.items()} | tags
    theirs = TaskManager(include_path=str(tmp_path), include_defaults=False).task_index
    assert {name: entry.yaml_path or tuple(sorted(entry.tags)) for name, entry in theirs.items()} == ours


def test_a_file_that_includes_itself(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("include: a.yaml\ntask: a\n")
    with pytest.raises(DefinitionError):
        Definitions(index_of(tmp_path), plain_yaml).of("a")
