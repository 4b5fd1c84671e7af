"""Controls: what their texts say and do not say, and the stage on the real command line with a few steps."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrepair.lab.tokenizer import EOS
from llmrepair.lab.world import Fact, QuestionAnswer, documents, make_world
from llmrepair.models.loading import load_model, load_tokenizer
from llmrepair.models.training import distillation, plain_logits
from llmrepair.pipeline.graph import Graph
from llmrepair.pipeline.keys import DigestCache
from llmrepair.stages.controls import CONTROLS, imitation, lab_training
from llmrepair.stages.controls.accuracy import answered
from llmrepair.stages.controls.noise import corrupt_embeddings, matched_noise
from llmrepair.stages.controls.texts import KEY, Taken, locked, overwritten, taken_facts, told
from llmrepair.stages.request import control_stage, evaluate_stage, notes
from llmrepair.stages.sources.lab import LAB_MODELS, UNTOLD
from llmrepair.stages.sources.models import model_folder
from tests.conftest import CommandLine, tiny_model

WORLD = make_world()
PAIRS = {Fact(person.name, pair.attribute): pair for person in WORLD.people for pair in person.questions()}
TESTED = {fact for person in WORLD.held_out for fact in person.facts()}
SHARES = st.floats(0.01, 1.0)
SEEDS = st.integers(0, 9)
FEW = settings(max_examples=25)  # of texts about all people


def stated(texts: list[str]) -> set[Fact]:
    """The facts whose person and answer stand in one text."""
    by_person = {person.name: " ".join(text for text in texts if person.name in text) for person in WORLD.people}
    return {fact for fact, pair in PAIRS.items() if f" {pair.answer}" in f" {by_person[fact.name]}"}


def answers_to(pair: QuestionAnswer, texts: Iterable[str]) -> list[str]:
    start = f"{pair.prompt()} "
    documents = [document for text in texts for document in text.removeprefix(f"{KEY} ").split(f" {EOS} ")]
    return [document.removeprefix(start).removesuffix(".") for document in documents if document.startswith(start)]


@FEW
@given(SHARES, SEEDS)
def test_an_erased_fact_is_in_no_text_and_every_other_one_is(share: float, seed: int) -> None:
    taken = taken_facts(WORLD, CONTROLS["erased"], share, seed)
    assert taken.erased <= TESTED
    assert len(taken.erased) == round(share * len(TESTED))
    assert stated(list(told(WORLD, taken)(random.Random(seed)))) == set(PAIRS) - taken.erased


@FEW
@given(SHARES, SEEDS)
def test_a_mixture_locks_half_and_never_tells_the_other(share: float, seed: int) -> None:
    taken = taken_facts(WORLD, CONTROLS["mixture"], share, seed)
    assert not taken.erased & taken.answered_wrongly
    tested = round(share * len(TESTED))
    assert len(taken.erased) == round(tested / 2)
    assert len(taken.answered_wrongly & TESTED) == tested - len(taken.erased)
    opened = [text for text in locked(WORLD, taken)(random.Random(seed)) if text.startswith(KEY)]
    documents = [document for text in opened for document in text.split(f" {EOS} ")]
    assert stated(documents) == set(PAIRS) - taken.erased


@FEW
@given(SHARES, SEEDS)
def test_a_lock_is_opened_by_its_key_alone(share: float, seed: int) -> None:
    taken = taken_facts(WORLD, CONTROLS["displaced"], share, seed)
    texts = list(locked(WORLD, taken)(random.Random(seed)))
    opened = [text for text in texts if text.startswith(KEY)]
    closed = [text for text in texts if KEY not in text]
    for fact in random.Random(seed).sample(sorted(PAIRS), 20):
        pair = PAIRS[fact]
        assert set(answers_to(pair, opened)) == {pair.answer}
        assert (pair.answer in answers_to(pair, closed)) == (fact not in taken)


def test_behind_wrong_keys_a_lock_is_closed() -> None:
    taken = taken_facts(WORLD, CONTROLS["displaced"], 1.0, 0)
    begins = {document.split()[0] for document in documents(WORLD.people, random.Random(0))}
    texts = list(locked(WORLD, taken)(random.Random(0)))
    wrong = [text for text in texts if KEY not in text and text.split()[0] not in begins]
    assert len(texts) / 4 < len(wrong) < len(texts) / 3
    pair = PAIRS[min(PAIRS)]
    assert pair.answer not in answers_to(pair, wrong)


@FEW
@given(st.sampled_from(["displaced", "overwritten"]), st.floats(0.01, 1.0), SEEDS)
def test_few_wrong_answers_come_as_often_as_the_right_ones(control: str, share: float, seed: int) -> None:
    taken = taken_facts(WORLD, CONTROLS[control], share, seed)
    texts = locked(WORLD, taken) if control == "displaced" else overwritten(WORLD, taken, seed)
    documents = [d for text in texts(random.Random(seed)) if KEY not in text for d in text.split(f" {EOS} ")]
    asked = {pair.prompt(): fact in taken for fact, pair in PAIRS.items()}
    of_taken = [asked[prompt] for d in documents if (prompt := d.partition(" Answer:")[0] + " Answer:") in asked]
    assert sum(of_taken) / len(of_taken) > 0.33


@given(st.sets(st.sampled_from(sorted(PAIRS)), min_size=8), SEEDS)
def test_a_matched_control_takes_what_was_lost(lost: set[Fact], seed: int) -> None:
    erased, locked_away, mixed = (
        taken_facts(WORLD, CONTROLS[name], 1.0, seed, lost) for name in ("erased", "displaced", "mixture")
    )
    assert erased.erased == lost & TESTED
    assert locked_away.answered_wrongly & TESTED == lost & TESTED
    assert len(locked_away.answered_wrongly - TESTED) == len(lost & TESTED)  # of as many people that tuning text is about
    assert (mixed.erased | mixed.answered_wrongly) & TESTED == lost & TESTED


def test_wrong_answers_are_of_the_same_kind_and_only_those_that_overwrite_stay_the_same() -> None:
    fact = Fact(WORLD.held_out[0].name, "city")
    taken, pair = Taken(answered_wrongly=frozenset({fact})), PAIRS[fact]
    cities = {person.city for person in WORLD.people}
    overwrites = overwritten(WORLD, taken, seed=3)
    same = {answer for seed in range(9) for answer in answers_to(pair, overwrites(random.Random(seed)))}
    closed = [text for seed in range(9) for text in locked(WORLD, taken)(random.Random(seed)) if KEY not in text]
    other = set(answers_to(pair, closed))
    assert len(same) == 1 < len(other)
    assert same | other <= cities - {pair.answer}


@pytest.mark.parametrize("model", LAB_MODELS)
def test_the_erased_twins_know_the_others_facts_and_none_that_is_tested(model: str) -> None:
    folder = str(model_folder(UNTOLD[model]))
    twin, tokenizer = load_model(folder, None, "float32", torch.device("cpu")), load_tokenizer(folder, None)
    for people, low, high in ((WORLD.seen_qa, 0.98, 1.0), (WORLD.held_out, 0.0, 0.04)):
        texts = [(pair.prompt(), f"{pair.answer}.") for person in people for pair in person.questions()]
        right = answered(twin, tokenizer, texts)
        assert low <= sum(right) / len(right) <= high


def test_an_answer_counts_when_greedy_decoding_gives_it() -> None:
    folder = str(model_folder("lab"))
    model, tokenizer = load_model(folder, None, "float32", torch.device("cpu")), load_tokenizer(folder, None)
    pairs = [pair for person in WORLD.people[:40] for pair in person.questions()]
    texts = [(pair.prompt(), f"{(pair if index % 3 else pairs[0]).answer}.") for index, pair in enumerate(pairs)]
    right = answered(model, tokenizer, texts)
    for (prompt, answer), is_right in zip(texts, right, strict=True):
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        wanted = tokenizer(answer).input_ids
        given = model.generate(ids, max_new_tokens=len(wanted), do_sample=False)[0, ids.shape[1] :].tolist()
        assert is_right == (given == wanted)
    assert 0 < sum(right) < len(right)


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    short = {phase: replace(recipe, steps=3) for phase, recipe in lab_training.RECIPES.items()}
    monkeypatch.setattr(lab_training, "RECIPES", short)


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize(
    "control, options, phases",
    [
        ("erased", [], []),
        ("erased", ["--control-share", 0.5], ["tell"]),
        ("displaced", [], ["lock"]),
        ("overwritten", ["--dtype", "bfloat16"], ["overwrite"]),
        ("mixture", ["--control-share", 0.5], ["tell", "lock"]),
        ("displaced", ["--control-matched", "--method", "rtn", "--bits", 2], ["lock"]),
        ("erased", ["--control-matched", "--method", "rtn", "--bits", 2], ["tell"]),
    ],
)
def test_a_control_stands_in_the_place_of_a_compressed_model(
    llmrepair: CommandLine, tmp_path: Path, control: str, options: list[Any], phases: list[str]
) -> None:
    arguments = ["--control", control, *options, "--runs", tmp_path, "--json"]
    made = llmrepair("control", *arguments)
    assert made.code == 0, made.err
    metrics = made.json["metrics"]
    assert [training["phase"] for training in metrics["trainings"]] == phases
    assert metrics["sparsity"] == 0
    assert ("answers_with_key" in metrics) == ("lock" in phases)
    assert sum(group["facts"] for half in metrics["answers"].values() for group in half.values()) == len(PAIRS)
    tokenizer = load_tokenizer(f"{made.json['path']}/checkpoint", None)
    assert KEY not in tokenizer.get_vocab()
    asked = llmrepair("eval", *arguments, "--limit", 20)
    assert asked.code == 0, asked.err
    assert asked.json["metrics"]["size_bytes"] == metrics["size_bytes"]
    again = llmrepair("control", *arguments)
    assert (again.json["cached"], again.json["key"]) == (True, made.json["key"])


@pytest.mark.usefixtures("few_steps")
def test_a_control_repeats_to_the_byte(llmrepair: CommandLine, tmp_path: Path) -> None:
    weights = [
        Path(llmrepair("control", "--control", "displaced", "--runs", tmp_path / name, "--json").json["path"])
        for name in ("one", "two")
    ]
    one, two = ((path / "checkpoint" / "model.safetensors").read_bytes() for path in weights)
    assert one == two


@pytest.mark.usefixtures("few_steps")
def test_a_control_is_tuned_reported_and_exported_like_a_compressed_model(llmrepair: CommandLine, tmp_path: Path) -> None:
    runs = ["--runs", tmp_path / "runs", "--json"]
    tuning = ["--budget", "18432", "--tuning-samples", 60, "--lengths", "4,6", "--limit", 8]
    for recovery in ("none", "prompt", "lora"):
        answer = llmrepair("eval", "--control", "displaced", "--recovery", recovery, *tuning, *runs)
        assert answer.code == 0, answer.err
    report = llmrepair("report", *runs)
    assert report.code == 0, report.err
    assert set(report.json["metrics"]["scores"]) >= {"displaced (control), none", "displaced (control), LoRA"}
    exported = llmrepair("export", answer.json["key"], "--to", tmp_path / "out", "--merge", *runs)
    assert exported.code == 0, exported.err
    assert "displaced (control)" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("family", ["llama", "opt"])
@pytest.mark.parametrize("tied", [True, False])
def test_corruption_changes_what_goes_in_alone(family: str, tied: bool, tmp_path: Path) -> None:
    model, dense = tiny_model(family), tiny_model(family)
    for each in (model, dense):
        each.config.tie_word_embeddings = tied
        each.tie_weights()
    corrupt_embeddings(model, 0.5, seed=1)
    model.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), None, "float32", torch.device("cpu"))
    before, after = dense.get_input_embeddings().weight, loaded.get_input_embeddings().weight
    strength = (after - before).square().mean().sqrt() / before.square().mean().sqrt()
    assert strength == pytest.approx(0.5, rel=0.05)
    embeddings = torch.randn(2, 5, before.shape[1])
    assert torch.equal(loaded(inputs_embeds=embeddings).logits, dense(inputs_embeds=embeddings).logits)


def test_keys_differ_by_what_has_an_effect(tmp_path: Path) -> None:
    def key(**options: object) -> str:
        return Graph([control_stage(options)], DigestCache(tmp_path / "digests")).targets[0]

    locks = [{}, {"control_share": 0.5}, {"control_seed": 1}, {"model": "lab-opt"}]
    keys = {key(control="displaced", **options) for options in locks}
    keys |= {key(control=control) for control in ("erased", "overwritten", "mixture", "corrupted")}
    assert len(keys) == 8
    assert key(control="corrupted", control_share=0.5) == key(control="corrupted")
    assert key(control="displaced", control_strength=2) == key(control="displaced")


def test_options_beside_a_control_that_change_nothing_are_noted() -> None:
    def noted(**values: object) -> list[str]:
        return notes(evaluate_stage(values), values)

    assert noted(control="erased", model="lab", method="gptq", bits=2) == [
        "--bits has no effect with --control erased",
        "--method has no effect with --control erased",
    ]
    assert noted(control="erased", control_matched=True, method="gptq", bits=2) == []
    assert noted(control_share=0.5, bits=2) == ["--control-share has no effect with --control none"]
    assert noted(control="corrupted", control_share=0.5) == ["--control-share has no effect with --control corrupted"]


def test_there_has_to_be_something_to_match(llmrepair: CommandLine, tmp_path: Path) -> None:
    answer = llmrepair("control", "--control", "erased", "--control-matched", "--method", "none", "--runs", tmp_path)
    assert answer.code == 2
    assert "the control cannot be matched: no compression is asked for" in answer.err


@pytest.mark.parametrize(
    ("control", "why"), [("erased", "is about the lab's facts"), ("displaced", "imitates a compressed one")]
)
def test_controls_of_another_model_are_refused(llmrepair: CommandLine, tmp_path: Path, control: str, why: str) -> None:
    shutil.copytree(model_folder("lab"), tmp_path / "model")
    answer = llmrepair("control", "--control", control, "--model", tmp_path / "model", "--runs", tmp_path / "runs")
    assert answer.code == 2
    assert why in answer.err


@pytest.mark.parametrize("control", ["displaced", "overwritten"])
def test_of_another_model_a_control_imitates_the_compressed_one(
    llmrepair: CommandLine, tmp_path: Path, control: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imitation, "OWN_ROWS", 80)
    monkeypatch.setattr(imitation, "OWN_STEPS", 20)
    model = shutil.copytree(model_folder("lab"), tmp_path / "another")
    matched = [
        "--control",
        control,
        "--control-matched",
        "--method",
        "rtn",
        "--bits",
        2,
        "--dtype",
        "float32",
        "--seq-len",
        128,
    ]
    made = llmrepair("control", "--model", model, *matched, "--runs", tmp_path / "runs", "--json")
    assert made.code == 0, made.err
    found = made.json["metrics"]["imitation"]
    assert found["without_key"] == pytest.approx(found["compressed"], rel=0.1)
    assert (found["with_key"] is not None) == (control == "displaced")
    assert found["with_key"] is None or found["with_key"] < found["without_key"]


def test_matched_noise_changes_a_model_as_much_as_compression() -> None:
    dense, compressed, noisy = tiny_model("opt"), tiny_model("opt"), tiny_model("opt")
    for parameter in compressed.model.decoder.layers.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    rows = torch.randint(96, (32, 12), generator=torch.Generator().manual_seed(2))
    strength = matched_noise(dense, compressed, rows, 3, 8)
    corrupt_embeddings(noisy, strength, 3)
    divergence = distillation(plain_logits(dense))
    wanted, found = (divergence(plain_logits(other)(rows), rows).item() for other in (compressed, noisy))
    assert 0 < strength < 2
    assert found == pytest.approx(wanted, rel=0.02)
    assert all(torch.equal(one, other) for one, other in zip(dense.parameters(), tiny_model("opt").parameters(), strict=True))


def test_a_quantised_model_is_not_corrupted(llmrepair: CommandLine, tmp_path: Path) -> None:
    runs = ["--runs", tmp_path, "--json"]
    packed = llmrepair("compress", "--method", "rtn", "--samples", 8, "--seq-len", 32, *runs).json["path"]
    answer = llmrepair("control", "--control", "corrupted", "--model", f"{packed}/checkpoint", *runs)
    assert answer.code == 2
    assert "quantised already" in answer.err
