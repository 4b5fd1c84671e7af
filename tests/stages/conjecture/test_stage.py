"""The conjecture stage on saved samples whose truth is known, and what it is made of."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmrepair.lab.world import make_world
from llmrepair.pipeline.artifact import Artifact, write_json
from llmrepair.pipeline.errors import RequestError, WorkError
from llmrepair.pipeline.graph import Graph
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.progress import Reporter
from llmrepair.pipeline.stage import Context, Runtime
from llmrepair.stages.conjecture.roles import FLOOR, READINGS, Role
from llmrepair.stages.conjecture.stage import Conjecture
from llmrepair.stages.controls.stage import Control
from llmrepair.stages.evaluate.files import samples_file
from llmrepair.stages.request import MAKERS, conjecture_stage
from tests.conftest import tiny_model

VALUES = {"method": "rtn", "seeds": "0,1,2", "tasks": "lab_qa", "controls": "erased,displaced,overwritten"}
SECOND = {**VALUES, "rule": "second"}
QUESTIONS = [question for person in make_world().held_out for question in person.questions()]
TRUTHS = {  # of what a model lost, the share that comes back with prompt and LoRA
    "erased": (0.02, 0.03),
    "displaced": (0.97, 0.95),
    "overwritten": (0.03, 0.6),
    "mixture": (0.5, 0.5),
}
UNTUNED = 0.05
JITTER = 0.01
"""Share of what a model lost that any push tips over."""
Answer = Callable[[Role], NDArray[Any]]


def answers_of(truth: str) -> Answer:
    """Answers on the lab's 640 questions of a dense model that knows all but 10, of a model with a truth, and of controls."""
    generator = np.random.default_rng(5)
    reached = generator.random(640)  # the same facts come back with every seed, but for a few

    def answers(role: Role) -> NDArray[Any]:
        known = np.arange(640) >= 10
        if role.model == "dense":
            return known
        lost = np.arange(640) < (400 if role.model == "model" else 640)
        prompt, lora = TRUTHS[truth if role.model == "model" else role.model]
        if role.is_null:
            return known & (~lost | (generator.random(640) < JITTER))
        share = {"none": 0.0, "untuned": UNTUNED, "prompt": prompt, "idp": prompt, "oracle": prompt, "lora": lora}[role.arm]
        flipped = generator.random(640) < 0.02
        return known & (~lost | ((reached < share) ^ (flipped & (share > 0) & (share < 1)))) & (known | ~lost)

    return answers


def write_samples(folder: Path, right: NDArray[Any]) -> Artifact:
    folder.mkdir(parents=True)
    write_json(folder / "record.json", {"metrics": {"tasks": {"lab_qa": {}}}})
    lines = [
        {
            "doc_id": number,
            "filter": "none",
            "arguments": {"gen_args_0": {"arg_0": question.prompt(), "arg_1": {"until": ["."]}}},
            "target": question.answer,
            "correct": bool(correct),
        }
        for number, (question, correct) in enumerate(zip(QUESTIONS, right, strict=True))
    ]
    (folder / samples_file("lab_qa")).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Artifact("evaluate", folder.name, folder)


def write_probe(folder: Path, every: int) -> Artifact:
    """So many facts are read off the hidden states, and every tenth is guessed."""
    folder.mkdir()
    lines = [
        {"prompt": question.prompt(), "read": number % every == 0, "chance": 0.1} for number, question in enumerate(QUESTIONS)
    ]
    (folder / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Artifact("probe", folder.name, folder)


def write_texts(folder: Path, nats: NDArray[Any] | None, task: str) -> Artifact:
    """Of texts with losses; None: of answers that are neither right or wrong nor likely."""
    folder.mkdir(parents=True)
    score = {"value": 0.0 if nats is None else float(np.exp(nats.sum() / 1000))}
    write_json(folder / "record.json", {"metrics": {"tasks": {task: {"word_perplexity": score}}}})
    lines = [
        {"doc_id": number, "filter": "none", "correct": None, "loglikelihoods": None if nats is None else [-nats[number]]}
        for number in range(30)
    ]
    (folder / samples_file(task)).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Artifact("evaluate", folder.name, folder)


def run(
    tmp_path: Path, answers: Answer, values: dict[str, Any] = VALUES, write: Callable[..., Artifact] = write_samples
) -> tuple[dict[str, Any], Path]:
    stage = conjecture_stage(values)
    Graph([stage], DigestCache(tmp_path / "digests"))  # finds its sources
    inputs = {str(role): write(tmp_path / str(role).replace(" ", "-"), answers(role)) for role in stage.evaluations}
    inputs |= {
        name: write_probe(tmp_path / name, every) for name, every in ((READINGS, 4), (FLOOR, 20)) if name in stage.inputs()
    }
    folder = tmp_path / "conjecture"
    folder.mkdir()
    return stage.run(Context(folder, tmp_path / "work", inputs, Runtime(), Reporter(quiet=True))), folder


@pytest.mark.parametrize(
    ("truth", "word"),
    [("erased", "forgotten"), ("displaced", "displaced"), ("overwritten", "forgotten"), ("mixture", "mixed")],
)
def test_a_known_truth_gets_its_word(tmp_path: Path, truth: str, word: str) -> None:
    metrics, folder = run(tmp_path, answers_of(truth))
    found = metrics["tasks"]["lab_qa"]
    assert (metrics["verdict"], found["verdict"]) == (word, word)
    assert (found["items"], found["lost"]) == (640, 390)
    prompt, lora = TRUTHS[truth]
    index = found["displacement_index"]
    assert index["low"] <= (prompt - 0.02) / 0.95 <= index["high"]
    assert found["shares"]["displaced"]["value"] == pytest.approx(prompt, abs=0.05)
    assert found["shares"]["latent"]["value"] == pytest.approx(max(0, lora - prompt), abs=0.05)
    assert sum(share["value"] for share in found["shares"].values()) == pytest.approx(1)
    result = json.loads((folder / "conjecture.json").read_text())
    assert result["sentences"] == metrics["sentences"]
    task = result["tasks"]["lab_qa"]
    assert task["overlap"] == {"items": 640}
    assert set(task["models"]) == {"model", "erased", "displaced", "overwritten"}
    test = task["tests"]["prompt"]
    assert test["p_value"] == test["p_holm"]
    assert (test["p_value"] < 1e-9) == (prompt >= 0.5)
    assert test["noise_floor"]["significant"] <= 0.05


@pytest.mark.parametrize(
    ("truth", "word"),
    [("erased", "forgotten"), ("displaced", "displaced"), ("overwritten", "forgotten"), ("mixture", "mixed")],
)
def test_the_second_rule_gives_known_truths_their_word(tmp_path: Path, truth: str, word: str) -> None:
    metrics, folder = run(tmp_path, answers_of(truth), SECOND)
    found = json.loads((folder / "conjecture.json").read_text())["tasks"]["lab_qa"]
    assert (metrics["verdict"], found["verdict"]["word"]) == (word, word)
    assert [step["decides"] for step in found["verdict"]["path"]] == [False, False, False, True]
    evidence = found["evidence"]
    assert (evidence["phrasings"], evidence["placebos"], evidence["subjects"]) == (1, 8, 160)
    assert evidence["called_lost"] == 390 and 340 < evidence["lost"] < 390
    assert evidence["edge"]["value"] == pytest.approx(1 - evidence["lost"] / 390, abs=1e-5)
    prompt, _ = TRUTHS[truth]
    index = found["displacement"]["index"]
    assert index["low"] <= (prompt - 0.02) / 0.95 <= index["high"]
    assert evidence["damage"] == {} and "lab_qa has no candidates to choose from" in found["sentence"]
    assert evidence["recovery"]["model"]["placebos"]["value"] == pytest.approx(JITTER, abs=0.01)
    if truth == "overwritten":
        assert evidence["fates"]["latent"]["value"] == pytest.approx(1, abs=0.05)


def test_every_item_has_its_class_and_what_brought_it_back(tmp_path: Path) -> None:
    answers = answers_of("mixture")
    right = {role: answers(role) for role in conjecture_stage(VALUES).evaluations}
    _, folder = run(tmp_path, right.__getitem__)
    lines = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    assert [line["doc_id"] for line in lines] == list(range(640))
    for number, line in enumerate(lines):
        dense, alone = right[Role("dense")][number], right[Role("model")][number]
        wanted = {(True, False): "lost", (True, True): "kept", (False, False): "never_known"}[bool(dense), bool(alone)]
        prompt, lora = ([bool(right[Role("model", name, seed)][number]) for seed in range(3)] for name in ("prompt", "lora"))
        assert line["class"] == wanted
        assert (line["right"]["prompt"], line["right"]["lora"]) == (prompt, lora)
        assert line["read"] == (number % 4 == 0)
        if wanted == "lost":
            assert [fate == "displaced" for fate in line["fate"]] == prompt
            assert [fate == "erased" for fate in line["fate"]] == [not (p or r) for p, r in zip(prompt, lora, strict=True)]


def test_items_that_the_tuning_text_holds_are_left_out(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    held = QUESTIONS[20].question.removeprefix("Where was ").removesuffix(" born?")
    assert "Where was" in QUESTIONS[20].question
    text.write_text("\n\n".join([f"{held} lives here."] + ["Nothing is known of others."] * 40))
    metrics, folder = run(tmp_path, answers_of("displaced"), {**VALUES, "tuning_data": str(text)})
    assert metrics["tasks"]["lab_qa"]["items"] == 636
    lines = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    assert [(line["doc_id"], line["class"]) for line in lines if line["overlap"]] == [(n, None) for n in range(20, 24)]
    overlap = json.loads((folder / "conjecture.json").read_text())["tasks"]["lab_qa"]["overlap"]
    assert overlap == {"items": 640, "entity": 4}


def test_text_about_most_of_the_tested_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"{person.name} lives here." for person in make_world().held_out[:81]))
    with pytest.raises(WorkError, match="the tuning text holds 324 of the 640 items of lab_qa"):
        run(tmp_path, answers_of("displaced"), {**VALUES, "tuning_data": str(text)})


def test_it_is_undetermined_without_controls(tmp_path: Path) -> None:
    metrics, _ = run(tmp_path, answers_of("displaced"), {**VALUES, "controls": ""})
    assert metrics["verdict"] == "undetermined"
    assert "a control is missing" in metrics["sentences"][0]
    assert metrics["tasks"]["lab_qa"]["displacement_index"] is None


def losses_of(undone: dict[str, float], damage: float = 20) -> Answer:
    """Losses of 30 texts, to which the damaged model and each control lose as much, and repairs give a share of it back."""
    dense = np.random.default_rng(2).normal(100, 10, 30)

    def losses(role: Role) -> NDArray[Any]:
        generator = np.random.default_rng(role.seed)
        if role.model == "dense":
            return dense
        share = undone[role.arm] + generator.normal(0, 0.01, 30) if role.arm != "none" else 0
        return dense + damage * np.sin(np.arange(30) + 1.5) ** 2 * (1 - share)

    return losses


def test_texts_are_undetermined_and_say_what_each_repair_undoes(tmp_path: Path) -> None:
    shares = {"untuned": 0.05, "prompt": 0.1, "idp": -0.2, "oracle": 0.2, "lora": 0.6}
    values = {**VALUES, "tasks": "lab_text", "controls": "erased"}
    losses = losses_of(shares)
    metrics, folder = run(tmp_path, losses, values, partial(write_texts, task="lab_text"))
    found = metrics["tasks"]["lab_text"]
    assert (metrics["verdict"], found["verdict"], found["items"]) == ("undetermined", "undetermined", 30)
    assert "no right or wrong answers" in metrics["sentences"][0]
    assert "60 % [60, 60] by LoRA" in metrics["sentences"][0]
    for name, share in shares.items():
        undone = found["undone"][name]
        assert undone["value"] == pytest.approx(share, abs=0.005)
        assert undone["value"] - 0.01 < undone["low"] <= undone["value"] <= undone["high"] < undone["value"] + 0.01
    result = json.loads((folder / "conjecture.json").read_text())["tasks"]["lab_text"]
    assert list(result["models"]["erased"]["undone"]) == ["prompt", "lora"]
    assert result["overlap"].startswith("not checked")
    perplexities = {repair: scores["word_perplexity"] for repair, scores in result["models"]["model"]["scores"].items()}
    expected = [np.exp(losses(Role("model", "lora", seed)).sum() / 1000) for seed in range(3)]
    assert perplexities["lora"] == pytest.approx(np.mean(expected))
    assert result["dense"]["word_perplexity"] < perplexities["lora"] < perplexities["none"] < perplexities["idp"]
    lines = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    assert [line["doc_id"] for line in lines] == list(range(30))
    assert lines[3]["nats"]["none"] == losses(Role("model"))[3]
    assert lines[3]["nats"]["lora"] == [losses(Role("model", "lora", seed))[3] for seed in range(3)]


def test_of_texts_without_damage_nothing_is_undone(tmp_path: Path) -> None:
    losses = losses_of({"untuned": 0.1, "prompt": 0.1, "idp": 0.1, "oracle": 0.1, "lora": 0.6}, damage=0)
    metrics, _ = run(tmp_path, losses, {**VALUES, "tasks": "lab_text", "controls": ""}, partial(write_texts, task="lab_text"))
    assert metrics["tasks"]["lab_text"]["undone"] == {
        "untuned": None,
        "prompt": None,
        "idp": None,
        "oracle": None,
        "lora": None,
    }
    assert "nothing to undo" in metrics["sentences"][0]


def test_a_task_that_can_not_be_judged_is_named(tmp_path: Path) -> None:
    values = {**VALUES, "tasks": "lab_text", "controls": ""}
    metrics, _ = run(tmp_path, lambda role: None, values, partial(write_texts, task="lab_text"))  # type: ignore[arg-type,return-value]
    assert (metrics["verdict"], metrics["tasks"]) == ("undetermined", {})
    assert metrics["sentences"] == [
        "lab_text is left out, because its answers are neither right or wrong nor texts with a likelihood"
    ]


def test_the_same_test_is_made_again_from_its_options(tmp_path: Path) -> None:
    given = {"lengths": "4,6", "rank": "4", "limit": "7", "idp_layers": "0,1", "idp_calibrate": "zscore", "lora_merged": True}
    stage = conjecture_stage({**VALUES, **given})
    again = MAKERS["conjecture"](json.loads(json.dumps(stage.options())))
    assert isinstance(again, Conjecture)
    assert list(again.evaluations) == list(stage.evaluations)
    assert {role.arm for role, each in stage.evaluations.items() if "measured" in each.inputs()} == {"idp"}
    graph = Graph([stage, again], DigestCache(tmp_path / "digests"))
    assert graph.targets[0] == graph.targets[1]


def test_it_is_made_of_each_repair_with_each_seed() -> None:
    stage = conjecture_stage({**VALUES, "controls": "erased,displaced"})
    assert len(stage.inputs()) == 1 + (1 + 5 * 3) + 2 * (1 + 2 * 3) + 2
    with_placebos = conjecture_stage({**SECOND, "controls": "erased,displaced", "placebos": 5})
    assert len(with_placebos.inputs()) == len(stage.inputs()) + 3 * 5
    (placebo,) = [each for role, each in with_placebos.evaluations.items() if role == Role("displaced", "placebo 4")]
    assert (placebo.tuned.config.placebo_kind, placebo.tuned.config.placebo_seed) == ("random", 1)  # type: ignore[union-attr]
    assert placebo.tuned.tuned.config.seed == 2  # type: ignore[union-attr]
    oracle = stage.evaluations[Role("model", "oracle", 2)]
    assert (oracle.repair.name, oracle.placing.model_dump()["select"]) == ("prompt", "oracle")
    prompt = stage.evaluations[Role("model", "prompt", 2)]
    assert oracle.tuned is not None
    assert prompt.tuned is not None
    assert oracle.tuned.config == prompt.tuned.config
    untuned = stage.evaluations[Role("model", "untuned", 2)].tuned
    assert untuned is not None
    assert untuned.config == prompt.tuned.config.model_copy(update={"budget": 0})
    assert stage.inputs()["model idp 2"].config.recovery == "idp"  # type: ignore[attr-defined]
    repair = stage.evaluations[Role("erased", "lora", 1)].tuned
    assert repair is not None
    assert repair.config.seed == 1
    assert stage.evaluations[Role("dense")].compressed.config.method == "none"
    assert conjecture_stage({"method": "rtn"}).models == ["model", "erased", "displaced", "overwritten"]


def test_its_controls_lose_what_the_model_under_test_lost() -> None:
    stage = conjecture_stage({**VALUES, "control_seed": 3})
    for name in ("erased", "displaced", "overwritten"):
        control = stage.evaluations[Role(name, "lora", 1)].compressed
        assert isinstance(control, Control)
        assert (control.config.control, control.config.is_matched, control.config.control_seed) == (name, True, 0)
        assert control.compressed is not None
        assert control.compressed.config == stage.damaged.compressed.config


def test_beside_a_control_under_test_controls_take_all_facts() -> None:
    stage = conjecture_stage({"control": "displaced", "control_seed": 1, "control_share": 0.9, "tasks": "lab_qa"})
    tested, beside = stage.damaged.compressed, stage.evaluations[Role("displaced")].compressed
    assert isinstance(tested, Control)
    assert isinstance(beside, Control)
    assert (tested.config.control_seed, tested.config.control_share) == (1, 0.9)
    assert (beside.config.control_seed, beside.config.control_share, beside.compressed) == (0, 1.0, None)


def test_controls_of_another_model_imitate_the_compressed_one(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    other = {**VALUES, "model": str(tmp_path)}
    del other["controls"]
    stage = conjecture_stage(other)
    assert (stage.models, stage.probe) == (["model", "displaced", "overwritten"], None)
    assert stage.evaluations[Role("displaced")].compressed.inputs().keys() == {"compressed"}
    assert conjecture_stage({**other, "method": "none", "control": "corrupted"}).models == ["model"]


@pytest.mark.parametrize("controls", ["erased,displaced", "displaced"])
def test_what_a_probe_reads_and_no_prompt_brings_back(tmp_path: Path, controls: str) -> None:
    """The floor is what a probe reads of the model that was never told, and without that what guessing gives."""
    answers, values = answers_of("mixture"), {**VALUES, "controls": controls}
    right = {role: answers(role) for role in conjecture_stage(values).evaluations}
    _, folder = run(tmp_path, right.__getitem__, values)
    lost = right[Role("dense")] & ~right[Role("model")]
    unreached = ~np.stack([right[Role("model", "prompt", seed)] for seed in range(3)])[:, lost]
    found = json.loads((folder / "conjecture.json").read_text())["tasks"]["lab_qa"]["readable"]
    numbers = np.arange(640)
    floor = numbers % 20 == 0 if "erased" in controls else np.full(640, 0.1)
    for name, read in (("probe", numbers % 4 == 0), ("floor", floor)):
        assert found[name]["value"] == pytest.approx((unreached * read[lost]).mean())
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]


def test_the_oracle_is_a_rate_and_no_test(tmp_path: Path) -> None:
    _, folder = run(tmp_path, answers_of("mixture"))
    found = json.loads((folder / "conjecture.json").read_text())["tasks"]["lab_qa"]
    assert list(found["models"]["model"]["rates"]) == ["untuned", "prompt", "idp", "oracle", "lora"]
    assert list(found["tests"]) == ["untuned", "prompt", "idp", "lora"]


def test_what_any_prompt_tips_over_stands_beside_what_tuning_adds(tmp_path: Path) -> None:
    metrics, folder = run(tmp_path, answers_of("mixture"))
    result = json.loads((folder / "conjecture.json").read_text())["tasks"]["lab_qa"]
    found, recovered = result["untuned"], result["models"]["model"]["rates"]["prompt"]["recovery"]["value"]
    assert found["recovery"]["value"] == pytest.approx(UNTUNED, abs=0.04)
    assert found["tuning_adds"]["value"] == pytest.approx(recovered - found["recovery"]["value"])
    assert found["tuning_adds"]["low"] < 0.5 - UNTUNED < found["tuning_adds"]["high"]
    assert f"({100 * found['recovery']['value']:.0f} % [" in metrics["sentences"][0]


def test_wrong_requests_are_refused() -> None:
    with pytest.raises(RequestError, match=r"itself sets --recovery.*itself sets --seed"):
        conjecture_stage({**VALUES, "seed": 1, "recovery": "idp"})
    with pytest.raises(RequestError, match="nothing to test"):
        conjecture_stage({"method": "none"})
    with pytest.raises(RequestError) as error:
        conjecture_stage({**VALUES, "controls": "wiped", "bits": "5"})
    assert len(error.value.problems) == 2


def test_the_test_imports_no_torch() -> None:
    code = "import sys, llmrepair.stages.conjecture.run, llmrepair.cli.conjecture; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
