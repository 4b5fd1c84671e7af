"""What `llmrepair.load` gives, beside what evaluations of the same artifacts answered."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedModel

from llmrepair import load
from llmrepair.models.prompted import PromptedModel
from llmrepair.pipeline.errors import RequestError
from llmrepair.stages.export.files import FACTS_FILE
from llmrepair.stages.sources.models import model_folder
from tests.conftest import CommandLine
from tests.e2e.test_chain import read_samples

QUICK = ["--method", "rtn", "--bits", 3, "--tuning-samples", 60, "--lengths", "4,6,6"]
QUICK += ["--learning-rates", 0.05, "--budget", 12_288, "--virtual-tokens", 4, "--rank", 2]
PROMPTED = {
    "fixed": ["--recovery", "prompt", "--select", "fixed:1"],
    "loss": ["--recovery", "prompt", "--select", "loss"],
    "ensemble": ["--recovery", "prompt", "--select", "ensemble"],
    "idp": ["--recovery", "idp", "--idp-layers", "0,2"],
    "calibrated": ["--recovery", "idp", "--idp-calibrate", "zscore", "--idp-layers", "tuned"],
    "token": ["--recovery", "idp", "--idp-per", "token"],
    "ptune": ["--recovery", "ptune"],
}
PLAIN = {
    "none": ["--recovery", "none"],
    "lora": ["--recovery", "lora"],
    "merged": ["--recovery", "lora", "--lora-merged"],
    "low-rank": ["--recovery", "low-rank"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def evaluated(llmrepair: CommandLine, runs: Path, options: list[str]) -> dict[str, Any]:
    answer = llmrepair("eval", "--runs", runs, "--json", "--limit", 12, *QUICK, *options)
    assert answer.code == 0, answer.err
    return dict(answer.json)


def logits(model: PreTrainedModel | PromptedModel) -> torch.Tensor:
    ids = torch.randint(5, 90, (3, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(ids).logits


@pytest.mark.parametrize("name", [*PROMPTED, *PLAIN])
def test_a_loaded_model_answers_as_it_did_when_it_was_evaluated(llmrepair: CommandLine, runs: Path, name: str) -> None:
    answer = evaluated(llmrepair, runs, (PROMPTED | PLAIN)[name])
    model = load(f"evaluate/{answer['key'][:12]}", runs=runs, device="cpu")
    assert isinstance(model, PromptedModel) == (name in PROMPTED)
    tokenizer = AutoTokenizer.from_pretrained(model.name_or_path, padding_side="left")
    samples = read_samples(answer, "lab_qa")
    inputs = tokenizer([each["arguments"]["gen_args_0"]["arg_0"] for each in samples], padding=True, return_tensors="pt")
    ids, mask = inputs.input_ids, inputs.attention_mask
    output = model.generate(ids, attention_mask=mask, max_new_tokens=24, do_sample=False)
    for sample, text in zip(samples, tokenizer.batch_decode(output[:, ids.shape[1] :]), strict=True):
        assert text.startswith(sample["resps"][0][0])
    if isinstance(model, PromptedModel) and name in ("fixed", "loss", "idp", "calibrated"):
        assert [[prompt] for prompt in model.choose(ids, mask).tolist()] == [sample["prompts"] for sample in samples]


@pytest.mark.parametrize("name", ["none", "fixed", "idp", "calibrated", "ensemble", "ptune", "lora", "low-rank"])
def test_an_export_is_loaded_as_what_it_was_made_from(llmrepair: CommandLine, runs: Path, tmp_path: Path, name: str) -> None:
    key = evaluated(llmrepair, runs, (PROMPTED | PLAIN)[name])["key"]
    assert llmrepair("export", key, "--to", tmp_path / "out", "--runs", runs).code == 0
    options = {"recovery": "prompt", "select": "ensemble"} if name == "ensemble" else {}
    assert torch.equal(logits(load(tmp_path / "out", device="cpu", **options)), logits(load(key, runs=runs, device="cpu")))


def test_a_pool_that_was_not_evaluated_is_routed_and_options_win(llmrepair: CommandLine, runs: Path) -> None:
    answer = llmrepair("tune-prompts", "--runs", runs, "--json", *QUICK[:-4])
    model = load(answer.json["key"], runs=runs, device="cpu")
    routed = load(answer.json["key"], runs=runs, device="cpu", recovery="idp")
    assert isinstance(model, PromptedModel) and isinstance(routed, PromptedModel)
    assert type(model.selector) is type(routed.selector)
    best = load(answer.json["key"], runs=runs, device="cpu", recovery="prompt", select="fixed:2")
    assert torch.equal(
        logits(best), PromptedModel(model.model, model.cache).forward(*_inputs(), choice=torch.full((3,), 2)).logits
    )


def _inputs() -> tuple[torch.Tensor]:
    return (torch.randint(5, 90, (3, 12), generator=torch.Generator().manual_seed(0)),)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recovery": "prompt", "select": "oracle"}, "an oracle chooses by answers"),
        ({"recovery": "hard"}, "is a text and no part of a model"),
        ({"recovery": "none"}, "has recovery `idp`, not `none`"),
        ({"recovery": "lora"}, "has recovery `idp`, not `lora`"),
        ({"idp_calibrate": "centre"}, "holds no votes on held-out text"),
        ({"idp_layers": "tuned"}, "holds no votes on held-out text"),
        ({"idp_reduce": "median"}, "`median` is no value of --idp-reduce"),
    ],
)
def test_what_cannot_be_loaded_is_said(llmrepair: CommandLine, runs: Path, options: dict[str, Any], message: str) -> None:
    key = evaluated(llmrepair, runs, PROMPTED["idp"])["key"]
    with pytest.raises(RequestError, match=message):
        load(key, runs=runs, device="cpu", **options)


def test_votes_are_calibrated_as_they_were_counted(llmrepair: CommandLine, runs: Path) -> None:
    key = evaluated(llmrepair, runs, PROMPTED["calibrated"])["key"]
    with pytest.raises(RequestError, match="counted with `idp_reduce` mean, not sum"):
        load(key, runs=runs, device="cpu", idp_reduce="sum")
    assert isinstance(load(key, runs=runs, device="cpu", idp_calibrate="centre", idp_layers="first"), PromptedModel)


def test_no_such_model(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no folder"):
        load("3f2a", runs=tmp_path / "runs")


def test_an_option_that_the_repair_does_not_have_is_told(llmrepair: CommandLine, runs: Path) -> None:
    key = evaluated(llmrepair, runs, PROMPTED["idp"])["key"]
    with pytest.raises(RequestError, match="`selekt` is no option of recovery `idp`"):
        load(key, runs=runs, device="cpu", selekt="random")


FACTS: dict[str, Any] = {
    "compression": {"settings": {"dtype": "float32"}},
    "recovery": "none",
    "merged": False,
    "repair": None,
    "placing": {},
}


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A folder such as `llmrepair export` writes, of the embedded model as it is."""
    embedded = model_folder("lab")
    assert embedded is not None
    folder = shutil.copytree(embedded, tmp_path / "export")
    (folder / FACTS_FILE).write_text(json.dumps(FACTS))
    return folder


def test_an_export_is_loaded(export: Path) -> None:
    assert isinstance(load(export, device="cpu"), PreTrainedModel)


@pytest.mark.parametrize(
    ("edited", "named"),
    [
        ({"compression": None}, "`compression.settings.dtype`"),
        ({"compression": {"settings": {"dtype": 32}}}, "`compression.settings.dtype`"),
        ({"compression": {"settings": {"dtype": "float31"}}}, "float31"),
        ({"recovery": 3}, "`recovery`"),
        ({"recovery": "magic"}, "`magic`"),
        ({"merged": "no"}, "`merged`"),
        ({"recovery": "lora", "repair": {"placing": {}}}, "`settings`"),
        ({"recovery": "lora", "repair": {"placing": {}, "settings": {"seed": 0}}}, "adapter"),
        ({"recovery": "idp", "repair": {"placing": {}, "settings": {"seed": 0}}}, "pool.json"),
        ({"recovery": "lora", "repair": []}, "`repair`"),
    ],
)
def test_edited_facts_of_an_export_are_told_by_name(export: Path, edited: dict[str, Any], named: str) -> None:
    (export / FACTS_FILE).write_text(json.dumps(FACTS | edited))
    with pytest.raises(RequestError) as caught:
        load(export, device="cpu")
    assert named in caught.value.problems[0].message


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 99_999])
def test_facts_that_are_none_are_told(export: Path, text: str) -> None:
    (export / FACTS_FILE).write_text(text)
    with pytest.raises(RequestError, match=re.escape(FACTS_FILE)):
        load(export, device="cpu")
