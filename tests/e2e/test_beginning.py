"""A model whose tokenizer begins texts: [BOS][prompt][text] wherever a tuned prompt goes, beside a plain forward pass."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tokenizers import processors
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from llmrepair import load
from llmrepair.models.prompted import PromptedModel
from llmrepair.models.soft_prompt import load_pool
from llmrepair.stages.sources.models import model_folder
from tests.conftest import CommandLine
from tests.e2e.test_chain import read_samples

LENGTHS = (4, 6)
QUICK = [
    "--method",
    "none",
    "--dtype",
    "float32",
    "--tuning-samples",
    40,
    "--tuning-seq-len",
    32,
    "--lengths",
    "4,6",
    "--virtual-tokens",
    4,
]
QUICK += ["--learning-rates", 0.05, "--budget", 2048, "--tasks", "lab_qa,lab_mc", "--limit", 2]
QUESTION = "Question: Where was Hugo Ricci born? Answer:"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: the lab's model behind a tokenizer that begins texts with `</s>`, as the model learned it."""
    places = tmp_path_factory.mktemp("places")
    lab = model_folder("lab")
    assert lab is not None
    shutil.copytree(lab, places / "begun")
    tokenizer: Any = AutoTokenizer.from_pretrained(lab)
    tokenizer.bos_token = tokenizer.eos_token
    adds = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", tokenizer.eos_token_id)])
    tokenizer.backend_tokenizer.post_processor = adds
    tokenizer.save_pretrained(places / "begun")
    return places


@pytest.fixture(scope="module")
def tokenizer(places: Path) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(places / "begun", padding_side="left")
    assert tokenizer("Oslo").input_ids[0] == tokenizer.bos_token_id
    return tokenizer


@cache
def loaded(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def behind_adapter(folder: Path, name: str) -> PeftModel:
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return PeftModel.from_pretrained(base, str(folder), subfolder=name).eval()


def evaluated(llmrepair: CommandLine, places: Path, *options: object) -> dict[str, Any]:
    answer = llmrepair("eval", "--model", places / "begun", "--runs", places / "runs", "--json", *QUICK, *options)
    assert answer.code == 0, answer.err
    return dict(answer.json)


def plain(places: Path, pool: Path, number: int, ids: list[int]) -> torch.Tensor:
    """Log-probabilities [T, V] behind the beginning and the prompt, and behind each token of a text, which begins with BOS."""
    model = loaded(places / "begun")
    prompts, index = load_pool(pool)
    embeddings = model.get_input_embeddings()(torch.tensor(ids))
    vectors = torch.cat([embeddings[:1], prompts[number], embeddings[1:]])[None]
    positions = torch.arange(vectors.shape[1])[None] + index["input_position"] - len(prompts[number])
    with torch.no_grad():
        said = model(inputs_embeds=vectors, position_ids=positions).logits[0, len(prompts[number]) :]
    return torch.as_tensor(said.log_softmax(-1))


def test_a_pool_stands_behind_the_beginning_in_evaluations_loaded_models_exports_and_answers(
    llmrepair: CommandLine, places: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    answer, runs = evaluated(llmrepair, places, "--recovery", "idp", "--idp-calibrate", "centre"), places / "runs"
    (pool,) = (runs / "tune-prompts").iterdir()
    assert json.loads((pool / "pool.json").read_text())["bos"] == tokenizer.bos_token_id
    model = load(f"evaluate/{answer['key']}", runs=runs, device="cpu")
    assert isinstance(model, PromptedModel)

    for sample in read_samples(answer, "lab_mc"):
        asked = (
            [each["arg_0"] for each in sample["arguments"].values()],
            [each["arg_1"] for each in sample["arguments"].values()],
        )
        for context, choice, ((score, _),) in zip(*asked, sample["resps"], strict=True):
            before, whole = (tokenizer(text).input_ids for text in (context.rstrip(), context + choice))
            said = plain(places, pool, sample["prompts"][0], whole)
            expected = sum(float(said[place - 1, whole[place]]) for place in range(len(before), len(whole)))
            assert float(score) == pytest.approx(expected, abs=2e-3)

    samples = read_samples(answer, "lab_qa")
    inputs = tokenizer([each["arguments"]["gen_args_0"]["arg_0"] for each in samples], padding=True, return_tensors="pt")
    ids, mask = inputs.input_ids, inputs.attention_mask
    assert [[prompt] for prompt in model.choose(ids, mask).tolist()] == [sample["prompts"] for sample in samples]
    output = model.generate(ids, attention_mask=mask, max_new_tokens=24, do_sample=False)
    for sample, text in zip(samples, tokenizer.batch_decode(output[:, ids.shape[1] :]), strict=True):
        assert text.startswith(sample["resps"][0][0])
    context = tokenizer(QUESTION).input_ids
    row = torch.tensor([context])
    said = plain(places, pool, int(model.choose(row)), context)
    torch.testing.assert_close(model(row).logits[0].log_softmax(-1), said, rtol=1e-4, atol=1e-4)

    key = f"evaluate/{answer['key']}"
    told = llmrepair("ask", QUESTION, "--json", "--runs", runs, "--max-new-tokens", 1, "--model", key).json["answers"][-1]
    (token,) = told["tokens"] or [{"ids": [tokenizer.eos_token_id], "probability": float(said[-1].exp().max())}]
    assert (token["ids"], token["probability"]) == (
        [int(said[-1].argmax())],
        pytest.approx(float(said[-1].exp().max()), rel=1e-3),
    )

    assert llmrepair("export", key, "--to", places / "out", "--runs", runs).code == 0
    assert torch.equal(load(places / "out", device="cpu")(row).logits, model(row).logits)
    card = (places / "out" / "README.md").read_text()
    assert "add_special_tokens=False" in card and "The first virtual token is the one that begins texts" in card
    for number, length in enumerate(LENGTHS):
        peft = behind_adapter(places / "out", f"prompts/{number}")
        text = tokenizer(QUESTION, add_special_tokens=False, return_tensors="pt", return_token_type_ids=False)
        theirs = peft(**text).logits[0, length:].log_softmax(-1)
        torch.testing.assert_close(theirs, plain(places, pool, number, context), rtol=1e-4, atol=1e-4)


def test_virtual_tokens_of_p_tuning_stand_behind_it_and_lie_so_in_an_export(
    llmrepair: CommandLine, places: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    answer, runs = evaluated(llmrepair, places, "--recovery", "ptune", "--kind", "p-tuning"), places / "runs"
    model = load(f"evaluate/{answer['key']}", runs=runs, device="cpu")
    assert isinstance(model, PromptedModel) and model.bos == tokenizer.bos_token_id
    assert llmrepair("export", f"evaluate/{answer['key']}", "--to", places / "ptune", "--runs", runs).code == 0
    row = tokenizer(QUESTION, return_tensors="pt").input_ids
    assert torch.equal(load(places / "ptune", device="cpu")(row).logits, model(row).logits)
    peft = behind_adapter(places / "ptune", "ptune")
    theirs = peft(input_ids=row[:, 1:], attention_mask=torch.ones_like(row[:, 1:])).logits[:, 4:]
    torch.testing.assert_close(model(row).logits, theirs, rtol=1e-4, atol=1e-4)


def test_a_pool_that_is_tuned_without_it_is_used_without_it(
    llmrepair: CommandLine, places: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    answer = evaluated(llmrepair, places, "--recovery", "prompt", "--select", "fixed:0", "--bos", "never")
    model = load(f"evaluate/{answer['key']}", runs=places / "runs", device="cpu")
    assert isinstance(model, PromptedModel) and model.bos is None
