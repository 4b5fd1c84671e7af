"""The toys of `examples/extend`, installed as a package beside llmrepair and used through the real command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture import ROOT
from tests.child import Said, run_in_child
from tests.conftest import CommandLine

TOYS = ROOT / "examples" / "extend"
QUICK = ["--method", "random", "--sparsity", "0.3", "--samples", "16"]
TASKS = ["--tasks", "lab_qa,lab_text"]
COMMANDS = {
    "help": ["--help"],
    "eval help": ["eval", "--help"],
    "compress": ["compress", *QUICK, "--json"],
    "plain": ["eval", *QUICK, "--limit", "8", *TASKS, "--json"],
    "eval": ["eval", *QUICK, "--recovery", "louder", "--louder-by", "1.2", "--limit", "8", *TASKS, "--json"],
    "control": ["control", "--control", "shuffled", "--json"],
    "norms": ["norms", *QUICK, "--json"],
    "report": ["report", "--html", "report.html"],
    "export": ["export", "evaluate/{eval}", "--to", "exported"],
    "wrong": ["eval", "--louder-by", "0"],
}


LOAD = """
import sys, torch
from llmrepair import load
from llmrepair.pipeline.errors import RequestError

evaluated, compressed = sys.argv[1:]
ids = torch.arange(5, 25)[None]
plain = load(compressed, device="cpu")(ids).logits
for louder in (load(evaluated), load("exported"), load(compressed, recovery="louder", louder_by=1.2)):
    torch.testing.assert_close(louder(ids).logits, plain * 1.2)
try:
    load(evaluated, device="gpu")
except RequestError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("extend")


@pytest.fixture(scope="module")
def said(folder: Path) -> dict[str, Said]:
    """Command -> exit code, standard output and standard error."""
    shutil.copytree(TOYS, folder / "source")  # which pip leaves files in
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*install, str(folder / "packages"), str(folder / "source")], check=True, capture_output=True)
    found = run_in_child(COMMANDS, folder, PYTHONPATH=str(folder / "packages"), COLUMNS="160")
    assert {name: code for name, (code, *_) in found.items()} == {name: 2 if name == "wrong" else 0 for name in COMMANDS}
    return found


def test_a_toy_is_at_most_forty_lines() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in TOYS.glob("*.py")}
    assert len(lengths) == 6
    assert max(lengths.values()) <= 40, lengths


def test_toys_stand_in_the_help(said: dict[str, Said]) -> None:
    assert "Measure how large the weights are." in said["help"][1]
    for words in ("louder", "--louder-by", "shuffled", "random"):
        assert words in said["eval help"][1]
    assert "--louder-by" in said["wrong"][2]


def test_the_toy_method_prunes_and_its_code_is_in_the_key(said: dict[str, Said], folder: Path) -> None:
    made = json.loads(said["compress"][1])
    assert made["metrics"]["sparsity"] == pytest.approx(0.3, abs=0.001)
    assert "extend_method" in json.loads((folder / made["path"] / "key.json").read_text())["code"]


def test_the_toy_repair_is_scored_and_reported(said: dict[str, Said], folder: Path) -> None:
    made = json.loads(said["eval"][1])
    key = json.loads((folder / made["path"] / "key.json").read_text())
    assert "extend_repair" in key["code"] and key["config"]["louder_by"] == 1.2
    assert "head x 1.2" in said["report"][1]
    assert "head x 1.2" in (folder / "report.html").read_text()


def test_the_toy_repair_changes_likelihoods_and_no_greedy_answer(said: dict[str, Said]) -> None:
    plain, louder = (json.loads(said[name][1])["metrics"]["tasks"] for name in ("plain", "eval"))
    assert plain["lab_qa"]["exact_match"] == louder["lab_qa"]["exact_match"]
    assert plain["lab_text"]["word_perplexity"] != pytest.approx(louder["lab_text"]["word_perplexity"], rel=1e-3)


def test_the_toy_diagnostic_has_a_section_in_the_report(said: dict[str, Said], folder: Path) -> None:
    assert json.loads(said["norms"][1])["metrics"]["largest"] > 0
    assert "How large are the weights?" in (folder / "report.html").read_text()


def test_the_toy_control_is_made(said: dict[str, Said]) -> None:
    assert json.loads(said["control"][1])["metrics"]["rows"] > 300


def test_the_export_says_that_the_toy_repair_is_not_in_it(said: dict[str, Said], folder: Path) -> None:
    assert "needs it to be put in place again" in (folder / "exported" / "README.md").read_text().replace(
        "scores need", "needs"
    )


def test_the_toy_repair_is_loaded_from_the_store_from_an_export_and_onto_a_model(said: dict[str, Said], folder: Path) -> None:
    keys = [json.loads(said[name][1])["key"] for name in ("eval", "compress")]
    environment = os.environ | {"PYTHONPATH": str(folder / "packages")}
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, *keys], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    assert "--device" in loaded.stdout


def test_the_toy_family_is_compressed(llmrepair: CommandLine, tmp_path: Path) -> None:
    tokenizer, text = ROOT / "lab" / "weights" / "lab", tmp_path / "text.txt"
    text.write_text("\n\n".join(f"Sara Falk was born in Oslo, {n} times." for n in range(200)))
    subprocess.run(
        [sys.executable, str(TOYS / "family.py"), "my-model", str(tokenizer)], cwd=tmp_path, check=True, capture_output=True
    )
    model = ["--model", tmp_path / "my-model", "--trust-remote-code"]
    options = ["--method", "rtn", "--bits", "4", "--calibration", text, "--runs", tmp_path / "runs"]
    answer = llmrepair("compress", *model, *options, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["metrics"]["bits_per_weight"] < 5
