from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from llmrepair.pipeline.errors import RequestError
from llmrepair.pipeline.graph import Graph
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.stage import Stage
from llmrepair.stages.conjecture.stage import Role
from llmrepair.stages.controls.stage import ControlConfig
from llmrepair.stages.plan import Plan, read_plan
from llmrepair.stages.request import EVALUATION, configs_of, evaluate_stage, validated


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.toml"


def read(path: Path, text: str) -> Plan:
    path.write_text(text)
    return read_plan(path)


def labels(plan: Plan) -> list[str]:
    return [evaluation.label() for evaluation in plan.evaluations]


def problems(path: Path, text: str) -> list[str]:
    with pytest.raises(RequestError) as caught:
        read(path, text)
    assert all(problem.hint for problem in caught.value.problems)
    return [problem.message.removeprefix(f"{path}:") for problem in caught.value.problems]


GRID = """
[defaults]
bits = 4
[grid]
models = ["lab", "lab-opt"]
compressions = ["rtn", { method = "gptq", bits = 2, group_size = 32 }]
recoveries = ["none", { recovery = "lora", rank = 4 }]
tasks = ["lab_qa"]
seeds = [0, 1]
"""


def test_a_grid_is_every_combination(path: Path) -> None:
    plan = read(path, GRID)
    assert plan.name == "study"
    assert len(plan.evaluations) == 2 * 2 * 2 * 2
    assert plan.evaluations[0].compressed.config.bits == 4
    assert "lab-opt gptq 2 bits, group 32: LoRA on lab_qa" in labels(plan)
    tuned = [evaluation.tuned.config for evaluation in plan.evaluations if evaluation.tuned is not None]
    assert {config.seed for config in tuned} == {0, 1}


def test_shared_stages_are_one(path: Path, tmp_path: Path) -> None:
    graph = Graph(read(path, GRID).evaluations, DigestCache(tmp_path / "digests"))
    counts = {name: sum(node.stage.name == name for node in graph) for name in ("compress", "tune-lora", "evaluate")}
    # An evaluation without a repair has no seed.
    assert counts == {"compress": 4, "tune-lora": 8, "evaluate": 4 + 8}
    seen: set[str] = set()
    for node in graph:
        assert set(node.inputs) <= seen
        seen.add(node.name)


def test_exclude_and_include(path: Path) -> None:
    plan = read(
        path,
        GRID
        + """
[[exclude]]
model = "lab-opt"
method = ["gptq", "wanda"]
[[exclude]]
recovery = "lora"
seed = 1
[[include]]
method = "wanda"
sparsity = 0.3
""",
    )
    assert len(plan.evaluations) == 16 - 4 - 3 + 1
    assert labels(plan)[-1] == "lab wanda 30%: no repair on lab_qa"
    assert not any("lab-opt gptq" in label for label in labels(plan))
    assert plan.notes == []


def test_an_exclusion_that_excludes_nothing_is_noted(path: Path) -> None:
    plan = read(path, GRID + '[[exclude]]\nmodel = "lap"\n')
    assert plan.notes == [f"{path}:10: no cell is excluded by this"]


def test_a_cell_is_what_the_command_line_makes_of_the_same_options(path: Path, tmp_path: Path) -> None:
    plan = read(
        path, '[[include]]\nmethod = "gptq"\nbits = 2\nrecovery = "idp"\nlengths = [4, 6]\ntasks = ["lab_qa", "lab_mc"]\n'
    )
    typed = {"method": "gptq", "bits": "2", "recovery": "idp", "lengths": "4,6", "tasks": "lab_mc,lab_qa"}
    graph = Graph([*plan.evaluations, evaluate_stage(typed)], DigestCache(tmp_path / "digests"))
    assert graph.targets[0] == graph.targets[1]


GIVEN = """
[defaults]
model = "lab-opt"
[grid]
models = ["lab", { model = "lab-opt", revision = "other" }]
compressions = ["rtn"]
[[include]]
model = "lab-opt"
method = "none"
[conjecture]
controls = ["erased"]
"""


def test_a_given_model_takes_the_place_of_all_of_the_plan(path: Path) -> None:
    path.write_text(GIVEN)
    plan = read_plan(path, {"model": "lab"})
    assert labels(plan) == ["lab rtn 3 bits: no repair on lab_qa", "lab dense: no repair on lab_qa"]
    assert {evaluation.compressed.config.revision for evaluation in plan.evaluations} == {None}
    assert [test.damaged.compressed.label() for test in plan.conjectures] == ["lab rtn 3 bits"]
    assert plan.name == "study-lab"  # so that `gc` keeps what was computed of each


def test_an_exclusion_sees_the_given_model(path: Path) -> None:
    path.write_text(GRID + '[[exclude]]\nmodel = "lab-opt"\nmethod = "rtn"\n')
    assert len(read_plan(path, {"model": "lab-opt"}).evaluations) == 4
    assert len(read_plan(path, {"model": "lab"}).notes) == 1


def test_a_given_folder_of_tasks_is_that_of_every_cell(path: Path, tmp_path: Path) -> None:
    path.write_text(GIVEN)
    plan = read_plan(path, {"tasks_data": str(tmp_path)})
    assert {evaluation.config.tasks_data for evaluation in plan.evaluations} == {tmp_path}
    assert plan.name == f"study-{str(tmp_path).strip('/').replace('/', '-')}"


def test_what_is_wrong_with_what_was_given_is_told_once_and_without_a_line(path: Path) -> None:
    path.write_text(GIVEN)
    with pytest.raises(RequestError) as caught:
        read_plan(path, {"model": "./nowhere", "tasks_data": "nothing"})
    assert sorted(problem.message for problem in caught.value.problems) == [
        "--model: there is no model folder `./nowhere`",
        "--tasks-data: there is no folder `nothing`",
    ]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("nam = 'x'\n[[include]]\n", ["1: `nam`: there is no `nam` here"]),
        ("name = '../x'\n[[include]]\n", ["1: `name`: `../x` is no name for a folder"]),
        ("name = 3\n[[include]]\n", ["1: `name`: `3` is no name for a folder"]),
        ("\n[grid]\nmodels = []\n", ["3: `grid.models`: an axis of the grid is a list"]),
        ("\n[grid]\nmodels = 'lab'\n", ["3: `grid.models`: an axis of the grid is a list"]),
        ("grid = 3\n", ["1: `grid`: `3` is no table"]),
        ("include = 3\n", ["1: `include`: `include` is a list of tables"]),
        ("include = [3]\n", ["1: `include[0]`: `3` is no table"]),
        ("[defaults]\nbits = 3\n", ["1: the plan asks for nothing"]),
        ("[defaults]\ndevice = 'cpu'\n[[include]]", ["2: `defaults.device`: there is no `device` here"]),
        ("[defaults]\ngroup-size = 3\n[[include]]", ["2: `defaults.group-size`: there is no `group-size` here"]),
        (
            "[grid]\nseeds = [0,\n -1]\n",
            ["3: `grid.seeds[1]`: `-1` is no value of --seed: input should be greater than or equal to 0"],
        ),
        ("[[include]]\n[[include]]\nbits = 5\n", ["3: `include[1].bits`: weights cannot be quantised to 5 bits"]),
        (
            "[grid]\ncompressions = [{method = 'rtn', seed = 1}]\nseeds = [0]\n",
            ["3: `grid.seeds[0]`: `seed` is also set by `compressions`"],
        ),
    ],
)
def test_what_is_wrong_is_told_with_line_and_key(path: Path, text: str, expected: list[str]) -> None:
    assert problems(path, text) == expected


def test_all_that_is_wrong_is_told_at_once_in_the_order_of_the_file(path: Path) -> None:
    text = "[grid]\nmodels = ['./nowhere']\ncompressions = [{bits = 5}, {method = 'x'}]\ntasks = ['no_such_task']\n"
    assert [problem.partition(":")[0] for problem in problems(path, text)] == ["2", "3", "3", "4"]


def test_what_is_no_toml(path: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="line 1"):
        read(path, "a = \nb = 1")
    with pytest.raises(RequestError, match="No such file"):
        read_plan(tmp_path / "nowhere.toml")


def test_a_plan_that_wants_remote_code_says_so(path: Path) -> None:
    assert not read(path, GRID).trusts_remote_code
    assert read(path, "[defaults]\ntrust_remote_code = true\n[[include]]\n").trusts_remote_code


CHOICES: dict[str, list[Any]] = {
    "dtype": ["float32", "bfloat16"],
    "trust_remote_code": [False, True],
    "method": ["none", "rtn", "gptq", "sparsegpt", "magnitude"],
    "bits": [2, 3],
    "group_size": [-1, 32],
    "sparsity": [0.5, 0.6],
    "pattern": ["unstructured", "2:4"],
    "asymmetric": [False, True],
    "signed_scale": [False, True],
    "damping": [0.01, 0.05],
    "column_order": ["activation", "left-to-right"],
    "propagate": ["compressed", "dense"],
    "expert_calibration": ["routed", "all"],
    "bos": ["auto", "never"],
    "format": ["compressed-tensors", "gptq", "dense"],
    "samples": [16, 17],
    "seq_len": [32, 33],
    "recovery": ["none", "hard", "icl", "prompt", "idp", "ptune", "lora", "norms", "low-rank", "placebo"],
    "placebo_kind": ["words", "random", "shuffled", "dense", "rotated"],
    "placebo_seed": [0, 1],
    "select": ["best-validation", "fixed:0", "fixed:1", "random", "loss", "ensemble", "oracle"],
    "hard_prompt": ["Answer:", "Think, and answer:"],
    "icl_examples": [2, 3],
    "lora_merged": [False, True],
    "on_dense": [False, True],
    "control": ["none", "erased", "displaced", "overwritten", "mixture", "corrupted"],
    "control_share": [0.5, 1.0],
    "control_matched": [False, True],
    "control_strength": [0.1, 0.5],
    "control_seed": [0, 1],
    "tasks": [["lab_qa"], ["lab_mc"]],
    "limit": [None, 3],
    "num_fewshot": [None, 1],
    "apply_chat_template": [False, True],
    "system": [None, "Be brief."],
    "lm_eval_compatible": [False, True],
    "idp_layers": ["first", "all", "tuned"],
    "idp_reduce": ["mean", "sum", "max"],
    "idp_normalise": ["none", "length"],
    "idp_calibrate": ["none", "centre", "zscore"],
    "idp_per": ["sequence", "token"],
    "tuning_samples": [20, 21],
    "tuning_seq_len": [16, 17],
    "objective": [["lm"], ["distill", "lm"]],
    "budget": [300_000, 400_000],
    "size": ["small", "large"],
    "shards": [False, True],
    "initialisations": [["vocabulary"], ["text", "vocabulary"]],
    "examples_per_step": [2, 3],
    "learning_rates": [[0.1], [0.1, 0.2]],
    "seed": [0, 1],
    "lengths": [[4], [4, 6]],
    "rank": [4, 8],
    "kind": ["prefix", "p-tuning"],
    "virtual_tokens": [4, 8],
    "low_rank_kind": ["exact", "diagonal"],
    "rank_by_budget": [False, True],
    "train": ["norms", "biases"],
}
OPTIONS = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in CHOICES.items()})


def effective(options: dict[str, Any]) -> list[Any]:
    """The identity of every stage that the evaluation is made of."""

    def below(stage: Stage) -> Iterator[Any]:
        yield stage.name, stage.identity()
        for upstream in stage.inputs().values():
            yield from below(upstream)

    return list(below(evaluate_stage(options)))


def is_possible(options: dict[str, Any]) -> bool:
    """A control is matched to a compression, and votes of sequences are calibrated."""
    if options["idp_calibrate"] != "none" and options["idp_per"] == "token":
        return False
    return options["method"] != "none" or not validated(options, ControlConfig)[0].is_matched


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(options=OPTIONS, name=st.sampled_from(sorted(CHOICES)), data=st.data())
def test_a_key_changes_exactly_when_an_option_that_has_an_effect_does(
    tmp_path: Path, options: dict[str, Any], name: str, data: st.DataObject
) -> None:
    other = options | {name: data.draw(st.sampled_from(CHOICES[name]))}
    assume(is_possible(options) and is_possible(other))
    shuffled = dict(data.draw(st.permutations(list(options.items()))))
    digests = DigestCache(tmp_path / "digests")
    key, other_key, shuffled_key = Graph(map(evaluate_stage, (options, other, shuffled)), digests).targets
    assert key == shuffled_key
    assert (key == other_key) == (effective(options) == effective(other))


def test_every_option_that_counts_is_tried() -> None:
    configs = configs_of(EVALUATION)
    assert set(CHOICES) == {name for each in configs for name in each.model_fields.keys() - each.references}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(CHOICES))
def test_every_option_changes_some_key(tmp_path: Path, name: str) -> None:
    def key(options: dict[str, Any]) -> str:
        return Graph([evaluate_stage(options)], DigestCache(tmp_path / "digests")).targets[0]

    with_effect = {"pattern": "wanda", "sparsity": "wanda"}
    recoveries = {"rank": "lora", "lora_merged": "lora", "select": "prompt", "hard_prompt": "hard", "icl_examples": "icl"}
    recoveries |= {"kind": "ptune", "virtual_tokens": "ptune", "low_rank_kind": "low-rank", "rank_by_budget": "low-rank"}
    recoveries |= {"train": "norms"}
    recoveries |= {"placebo_kind": "placebo", "placebo_seed": "placebo"}
    controls = {"control_share": "mixture", "control_strength": "corrupted", "control_seed": "displaced"}
    controls |= {"control_matched": "displaced"}
    base = {"method": with_effect.get(name, "gptq"), "recovery": recoveries.get(name, "idp"), "bits": 2}
    base["control"] = controls.get(name, "none")
    keys = {key(base | {name: value}) for value in CHOICES[name]}
    assert len(keys) == len(CHOICES[name])


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.toml")), ids=lambda p: p.name
)
def test_the_examples_are_plans(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file in re.findall(r'"(build/.*\.\w+)"', path.read_text()):  # as make real lays them there
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    plan = read_plan(path)
    assert plan.evaluations
    assert plan.notes == []


def test_the_plan_in_the_docs_is_one(path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "plan.md").read_text()
    plan = read(path, page.partition('```toml title="first-look.toml"\n')[2].partition("```")[0])
    assert (plan.name, plan.notes) == ("first-look", [])
    assert len(plan.evaluations) == 2 * 2 * 3 * 2 * 3 - 2 * 2 * 2 * 3 + 1


TESTED = """
[defaults]
budget = 300_000
seed = 4

[grid]
models = ["lab", "lab-opt"]
compressions = ["none", "rtn", { method = "gptq", bits = 2 }]
recoveries = ["none", { recovery = "lora", rank = 2 }]
tasks = ["lab_qa", ["lab_mc", "lab_qa"]]
seeds = [0, 5]

[[exclude]]
model = "lab-opt"
method = "rtn"

[conjecture]
controls = ["erased"]
rank = 4
"""


def test_a_plan_tests_each_compression_of_its_grid(path: Path) -> None:
    plan = read(path, TESTED)
    found = [(t.damaged.compressed.label(), t.damaged.config.tasks) for t in plan.conjectures]
    compressed = ("lab rtn 3 bits", "lab gptq 2 bits", "lab-opt gptq 2 bits")
    assert found == [(label, tasks) for label in compressed for tasks in (("lab_qa",), ("lab_mc", "lab_qa"))]
    first = plan.conjectures[0]
    assert (first.config.seeds, first.models) == ((0, 5), ["model", "erased"])
    repairs = {role.arm: evaluation.tuned for role, evaluation in first.evaluations.items() if evaluation.tuned}
    budgets = {name: repair.config.budget for name, repair in repairs.items()}
    assert budgets == {"untuned": 0, "prompt": 300_000, "idp": 300_000, "oracle": 300_000, "lora": 300_000}
    repair = first.evaluations[Role("model", "lora", 5)].tuned
    assert repair is not None
    assert (repair.config.seed, repair.config.model_dump()["rank"]) == (5, 4)
    asked = [*plan.evaluations, *plan.conjectures]
    assert {*map(id, plan.targets)} > {*map(id, asked)}
    assert any(target is plan.evaluations[0].compressed for target in plan.targets)  # reports need it too


def test_a_plan_may_ask_for_tests_alone(path: Path) -> None:
    plan = read(path, "[conjecture]\nmethod = 'rtn'\nseeds = [7]")
    assert plan.evaluations == []
    assert [test.config.seeds for test in plan.conjectures] == [(7,)]


def test_what_is_wrong_with_a_test_is_told_by_line(path: Path) -> None:
    assert problems(path, "[conjecture]\nseed = 1\nmethod = 'rtn'") == ["2: `conjecture.seed`: there is no `seed` here"]
    (problem,) = problems(path, "[conjecture]\nmethod = 'rtn'\ncontrols = ['wiped']")
    assert problem.startswith("3: `conjecture.controls`: `wiped` is no value of --controls")


def test_a_grid_of_millions_is_refused_with_its_number(path: Path) -> None:
    axis = list(range(1400))
    text = f'[grid]\nmodels = ["lab"]\ncompressions = {[{"method": "rtn", "seq_len": 2 + n} for n in axis]}\n'.replace("'", '"')
    text = text.replace('"method":', "method =").replace('"seq_len":', "seq_len =") + f"seeds = {axis}\n"
    (problem,) = problems(path, text)
    assert "the grid has 1,960,000 cells (1 models x 1,400 compressions x 1,400 seeds), and 10,000 are the most" in problem


def test_more_cells_are_let_through_where_that_is_said(path: Path) -> None:
    path.write_text('[grid]\nmodels = ["lab"]\nseeds = [0, 1, 2]\n')
    assert len(read_plan(path, most_cells=3).evaluations) == 3
    with pytest.raises(RequestError, match="the grid has 3 cells"):
        read_plan(path, most_cells=2)
