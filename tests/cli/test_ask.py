"""`ask`: the answers are those of `eval`, the probabilities those of the model."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoTokenizer

from llmrepair import load
from llmrepair.cli.ask import SHADES, shade_of
from llmrepair.stages.sources.models import model_folder
from tests.api.test_load import QUICK
from tests.conftest import CommandLine

QUESTION = "Question: Where was Hugo Ricci born? Answer:"
TEMPLATE = "{% for message in messages %}Question: {{ message['content'] }} Answer:{% endfor %}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def asked(llmrepair: CommandLine, runs: Path, *options: object, question: str = QUESTION) -> list[dict[str, Any]]:
    answer = llmrepair("ask", question, "--json", "--runs", runs, "--max-new-tokens", 6, *options)
    assert answer.code == 0, answer.err
    return list(answer.json["answers"])


def test_three_models_answer_as_they_are_evaluated(llmrepair: CommandLine, runs: Path) -> None:
    answers = asked(llmrepair, runs, "--recovery", "idp", "--side-by-side", *QUICK)
    assert [(each["model"], bool(each["picked"])) for each in answers] == [
        ("dense", False),
        ("compressed", False),
        ("repaired", True),
    ]
    assert answers[0]["answer"] == "Lima." and answers[0]["ended"]
    key = llmrepair("eval", "--runs", runs, "--json", "--limit", 1, "--recovery", "idp", *QUICK).json["key"]
    (sample,) = map(json.loads, (runs / "evaluate" / key / "samples_lab_qa_llmrepair.jsonl").read_text().splitlines())
    assert answers[-1]["prompts"] == sample["prompts"]
    assert answers[-1]["answer"].startswith(sample["resps"][0][0])
    assert asked(llmrepair, runs, "--model", f"evaluate/{key}", "--side-by-side")[1:] == answers[1:]


def test_probabilities_are_those_of_the_model(llmrepair: CommandLine, runs: Path) -> None:
    (answer,) = asked(llmrepair, runs, "--recovery", "prompt", "--select", "fixed:1", *QUICK)
    (pool,) = (runs / "tune-prompts").iterdir()
    model = load(pool.name, runs=runs, device="cpu", recovery="prompt", select="fixed:1")
    question = AutoTokenizer.from_pretrained(model.name_or_path)(QUESTION).input_ids
    tokens = [token for piece in answer["tokens"] for token in piece["ids"]]
    assert len(tokens) > 1 and answer["answer"] == "".join(piece["text"] for piece in answer["tokens"])
    with torch.no_grad():
        shares = model(torch.tensor([[*question, *tokens]])).logits[0].softmax(-1)[len(question) - 1 :]
    assert shares.argmax(-1)[: len(tokens)].tolist() == tokens
    expected = [shares[place, token].item() for place, token in enumerate(tokens)]
    assert all(math.isclose(a, piece["probability"], rel_tol=1e-4) for a, piece in zip(expected, answer["tokens"], strict=True))


@pytest.mark.parametrize("options", [["hard"], ["prompt", "--select", "ensemble"], ["idp", "--idp-per", "token"]])
def test_a_text_and_other_ways_to_choose_have_answers(llmrepair: CommandLine, runs: Path, options: list[str]) -> None:
    (answer,) = asked(llmrepair, runs, "--recovery", *options, *QUICK)
    assert answer["model"] == "repaired"
    assert bool(answer["picked"]) == (options[0] != "hard")


def test_a_chat_is_asked_in_its_template(llmrepair: CommandLine, runs: Path, tmp_path: Path) -> None:
    embedded = model_folder("lab")
    assert embedded is not None
    folder = shutil.copytree(embedded, tmp_path / "chat")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    options = ["--model", folder, "--method", "none"]
    chat = asked(llmrepair, runs, *options, "--chat", question="Where was Hugo Ricci born?")
    assert chat == asked(llmrepair, runs, *options)
    assert chat[0]["answer"] == "Lima."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([" "], "an empty text is no question"),
        (["Who", "--chat"], "`lab` has no chat template"),
        (["Who", "--recovery", "prompt", "--select", "oracle"], "an oracle chooses by answers"),
        (["Who", "--recovery", "idp", "--idp-layers", "9"], "has no layer 9 that could vote"),
        (["a " * 300], "a question of 300 tokens is longer than 127"),
        (["Who", "--model", "abcdef"], "no artifact has a key that starts with `abcdef`"),
        (["Who", "--tasks", "lab_qa"], "No such option: --tasks"),
    ],
)
def test_what_is_wrong_is_told_before_any_work(
    llmrepair: CommandLine, tmp_path: Path, options: list[str], message: str
) -> None:
    answer = llmrepair("ask", *options, "--runs", tmp_path / "runs")
    assert answer.code == 2 and message in answer.err and "hint: " in answer.err and not answer.out
    assert not list(tmp_path.glob("runs/[a-z]*/*"))


def test_options_that_make_a_model_do_not_go_with_a_key(llmrepair: CommandLine, runs: Path) -> None:
    llmrepair("compress", "--method", "none", "--runs", runs)
    key = llmrepair("compress", "--method", "none", "--runs", runs, "--json").json["key"]
    answer = llmrepair("ask", QUESTION, "--model", key, "--bits", 3, "--runs", runs)
    assert answer.code == 2 and "`bits` is no option of recovery `none`" in answer.err


def test_a_terminal_shows_shades_and_what_they_mean(
    llmrepair: CommandLine, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = llmrepair("ask", QUESTION, "--method", "none", "--runs", runs)
    assert "Lima." in plain.out and "\x1b" not in plain.out and "probability" not in plain.out
    screen = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=200)
    monkeypatch.setattr("llmrepair.cli.ask.console", lambda: screen)
    assert llmrepair("ask", "Who is", "--method", "none", "--runs", runs).code == 0
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    *_, answer, _, legend = shown.rstrip("\n").split("\n")
    assert "\x1b[" in answer
    assert all(shade.words in legend for shade in SHADES)
    told = {re.search(rf"(\x1b\[[\d;]*m){shade.words}", legend) for shade in SHADES[1:]}
    assert None not in told and len({found[1] for found in told if found}) == len(SHADES) - 1


def test_the_shades_get_darker_with_less_probability() -> None:
    assert [shade_of(p).words for p in (1.0, 0.9, 0.89, 0.5, 0.49, 0.1, 0.09, 0.0)] == [
        shade.words for shade in SHADES for _ in range(2)
    ]
    lightness = [sum(bytes.fromhex(shade.style.split(" on #")[1][:6])) for shade in SHADES[1:]]
    assert lightness == sorted(lightness, reverse=True)
