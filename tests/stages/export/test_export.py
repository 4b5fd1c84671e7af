"""Exports of the lab model, loaded by what their model cards say, in a process that knows nothing of llmrepair."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from llmrepair.cli.main import run
from llmrepair.models.loading import load_model
from llmrepair.models.lora import ADAPTER_FOLDER, with_adapter
from llmrepair.models.prompt_cache import build_prompt_cache, forward_with_prompt
from llmrepair.models.ptune import load_ptune
from llmrepair.models.soft_prompt import load_pool
from llmrepair.pipeline.artifact import Artifact, files_below
from llmrepair.pipeline.store import Store
from llmrepair.stages.drawing.numbers import score_text
from llmrepair.stages.export import files as export_files
from llmrepair.stages.export.card import render_card
from llmrepair.stages.export.merge import merge_problem
from llmrepair.stages.export.parts import Parts
from llmrepair.stages.sources.models import model_folder
from llmrepair.stages.sources.texts import load_texts
from tests.conftest import CommandLine

CHECKPOINT = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
OURS = {"README.md", "llmrepair.json"}
ADAPTER = {"adapter_config.json", "adapter_model.safetensors"}
PACKED = ["--method", "gptq", "--bits", "4", "--group-size", "32", "--samples", "8", "--seq-len", "32"]
SPARSE = ["--method", "magnitude", "--samples", "8", "--seq-len", "32"]
DENSE = ["--method", "none"]
TUNING = [
    "--budget",
    "18432",
    "--tuning-samples",
    "60",
    "--learning-rates",
    "0.03",
    "--lengths",
    "4,6,6",
    "--virtual-tokens",
    "5",
]
IDS = torch.arange(3, 23).reshape(2, 10)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: a model, texts, and a store with what was made of them."""
    places = tmp_path_factory.mktemp("places")
    lab = model_folder("lab")
    assert lab is not None
    shutil.copytree(lab, places / "my-lab")
    (places / "my-lab" / "README.md").write_text("---\nlicense: mit\n---\n\n# Mine\n")
    (places / "text.txt").write_text("\n\n".join(load_texts("lab", {})))
    text = places / "text.txt"
    model = [
        "--model",
        places / "my-lab",
        "--runs",
        places / "runs",
        "--dtype",
        "float32",
        "--seq-len",
        128,
        "--tuning-seq-len",
        64,
    ]
    for method in (PACKED, DENSE, SPARSE):
        calibration = ["--calibration", text] if method is PACKED else []
        for recovery in ("none", "idp", "prompt", "ptune", "lora") if method is PACKED else ("none", "lora"):
            tuning = [] if recovery == "none" else [*TUNING, "--tuning-data", text]
            arguments = ["eval", *model, *method, *calibration, *tuning, "--recovery", recovery, "--limit", "20"]
            assert run([str(argument) for argument in arguments]) == 0
    return places


@pytest.fixture(scope="module")
def found(places: Path) -> dict[str, Artifact]:
    """`stage method recovery` -> artifact."""
    artifacts = Store(places / "runs").artifacts()
    return {" ".join([each.stage, *list(each.record["tags"].values())[1:]]): each for each in artifacts}


EXPORTS = {
    "packed": "compress gptq",
    "dense": "compress none",
    "packed prompts": "tune-prompts gptq",
    "packed best prompt": "evaluate gptq prompt",
    "packed IDP": "evaluate gptq idp",
    "packed prefix": "evaluate gptq ptune",
    "packed LoRA": "tune-lora gptq",
    "sparse LoRA": "evaluate magnitude lora",
    "merged": "tune-lora none",
}


@pytest.fixture(scope="module")
def exports(places: Path, found: dict[str, Artifact]) -> dict[str, Path]:
    folders = {}
    for name, what in EXPORTS.items():
        folders[name] = places / "exports" / name
        merge = ["--merge"] if name == "merged" else []
        arguments = ["export", found[what].name, "--to", folders[name], "--runs", places / "runs", *merge]
        assert run([str(argument) for argument in arguments]) == 0
    return folders


LOAD = """
import os, re, sys, torch
from safetensors.torch import save_file
ids = torch.arange(3, 23).reshape(2, 10)
logits = {}
with torch.no_grad():
    for folder in sys.argv[2:]:
        os.chdir(folder)
        names = {}
        exec(re.search("```python\\n(.*?)```", open("README.md").read(), re.S)[1], names)
        logits[os.path.basename(folder)] = names["model"](input_ids=ids).logits[:, -10:].clone()
        if os.path.basename(folder) == "packed IDP":
            from peft import AutoPeftModelForCausalLM
            unpacked = names["unpacked"]
            other = AutoPeftModelForCausalLM.from_pretrained("prompts/2", dtype=torch.float32, quantization_config=unpacked)
            logits["other prompt"] = other(input_ids=ids).logits[:, -10:].clone()
assert not any(name.startswith("llmrepair") for name in sys.modules)
save_file(logits, sys.argv[1])
"""


@pytest.fixture(scope="module")
def logits(exports: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What each export's model says once it is loaded as its card tells."""
    file = tmp_path_factory.mktemp("logits") / "logits.safetensors"
    subprocess.run([sys.executable, "-c", LOAD, str(file), *map(str, exports.values())], check=True, capture_output=True)
    return load_file(file)


def location(places: Path, compressed: Artifact) -> str:
    is_dense = compressed.record["tags"]["method"] == "none"
    return str(places / "my-lab" if is_dense else compressed.path / "checkpoint")


def loaded(places: Path, compressed: Artifact) -> Any:
    return load_model(location(places, compressed), None, "float32", torch.device("cpu"))


@pytest.mark.parametrize("name", ["packed", "dense"])
def test_the_model_is_that_of_the_store(
    name: str, places: Path, found: dict[str, Artifact], logits: dict[str, torch.Tensor]
) -> None:
    model = loaded(places, found[EXPORTS[name]])
    assert torch.equal(model(input_ids=IDS).logits, logits[name])


@pytest.mark.parametrize("name, method", [("packed LoRA", "gptq"), ("sparse LoRA", "magnitude"), ("merged", "none")])
def test_lora_is_that_of_the_store_also_where_it_is_merged(
    name: str, method: str, places: Path, found: dict[str, Artifact], logits: dict[str, torch.Tensor]
) -> None:
    model = loaded(places, found[f"compress {method}"])
    plain = model(input_ids=IDS).logits
    adapted = with_adapter(model, found[f"tune-lora {method}"].path / ADAPTER_FOLDER)(input_ids=IDS).logits
    assert (adapted - plain).abs().max() > 0.1
    torch.testing.assert_close(logits[name], adapted, atol=1e-4, rtol=0)


def test_prompts_are_those_of_the_store(
    places: Path, found: dict[str, Artifact], logits: dict[str, torch.Tensor], exports: dict[str, Path]
) -> None:
    model = loaded(places, found["compress gptq"])
    prompts, pool = load_pool(found["tune-prompts gptq"].path)
    cache = build_prompt_cache(model, prompts, pool["input_position"])
    best = pool["validation_losses"].index(min(pool["validation_losses"]))
    expected = [
        forward_with_prompt(model, cache, torch.full((2,), number), IDS, torch.ones_like(IDS)) for number in range(len(prompts))
    ]
    for name in ("packed prompts", "packed best prompt", "packed IDP"):
        torch.testing.assert_close(logits[name], expected[best], atol=1e-4, rtol=0)
    torch.testing.assert_close(logits["other prompt"], expected[2], atol=1e-4, rtol=0)
    assert (expected[best] - expected[best - 1]).abs().max() > 1e-2
    assert {path.name for path in (exports["packed best prompt"] / "prompts").iterdir()} == {str(best), "pool.json"}


def test_a_prefix_is_that_of_the_store(
    places: Path, found: dict[str, Artifact], logits: dict[str, torch.Tensor], exports: dict[str, Path]
) -> None:
    model = loaded(places, found["compress gptq"])
    cache, _ = load_ptune(model, found["tune-ptune gptq"].path / ADAPTER_FOLDER)
    expected = forward_with_prompt(model, cache, torch.zeros(2, dtype=torch.long), IDS, torch.ones_like(IDS))
    assert (expected - model(input_ids=IDS).logits).abs().max() > 1e-2
    torch.testing.assert_close(logits["packed prefix"], expected, atol=1e-4, rtol=0)
    card = (exports["packed prefix"] / "README.md").read_text()
    assert "prefix-tuning" in yaml.safe_load(card.split("---\n")[1])["tags"]
    assert "with 5 virtual tokens (prefix-tuning) in `ptune/`" in card
    assert "vLLM does not load soft prompts or virtual tokens" in card


def test_what_lies_in_an_export(exports: dict[str, Path]) -> None:
    prompts = {"prompts/pool.json"} | {f"prompts/{number}/{file}" for number in range(3) for file in ADAPTER}
    lora = {f"lora/{file}" for file in ADAPTER}
    extra = {
        "packed prompts": prompts,
        "packed IDP": prompts,
        "packed prefix": {f"ptune/{file}" for file in ADAPTER},
        "packed LoRA": lora,
        "sparse LoRA": lora,
    }
    for name, folder in exports.items():
        held = {path.relative_to(folder).as_posix() for path in files_below(folder)}
        if name != "packed best prompt":
            assert held == CHECKPOINT | OURS | extra.get(name, set())
    assert not list(exports["packed"].parent.glob(".*"))  # where they were written


def test_an_export_shares_no_file_with_the_store(places: Path, exports: dict[str, Path]) -> None:
    assert all(path.stat().st_nlink == 1 and not path.is_symlink() for path in files_below(exports["packed LoRA"]))


def test_the_card_holds_the_scores_of_the_store(found: dict[str, Artifact], exports: dict[str, Path]) -> None:
    card = (exports["packed IDP"] / "README.md").read_text()
    rows = [line.split(" | ") for line in card.splitlines() if line.startswith(("| **gptq", "| gptq", "| dense"))]
    texts = {row[1].strip("*"): row[2].strip("*") for row in rows if not row[0].startswith("| dense")}
    for recovery, label in {"none": "none", "prompt": "one prompt", "idp": "IDP", "lora": "LoRA"}.items():
        score = found[f"evaluate gptq {recovery}"].metrics["tasks"]["lab_qa"]["exact_match"]
        assert texts[label] == score_text(score, {"metric": "exact_match"})
    dense = found["evaluate none none"].metrics["tasks"]["lab_qa"]["exact_match"]
    assert [row[1:3] for row in rows if row[0] == "| dense"] == [["none", score_text(dense, {"metric": "exact_match"})]]
    assert [row[1] for row in rows if "**" in row[1]] == ["**IDP**"]
    assert "Measured on lab_qa, first 20, and on nothing else" in card
    metrics = found["compress gptq"].metrics
    assert f"{metrics['bits_per_weight']:.2f} in these layers" in card
    assert f"{metrics['sparsity']:.1%} of the" in card
    assert "are zero, by rounding alone" in card
    assert "are zero |" in (exports["sparse LoRA"] / "README.md").read_text()
    assert "(base model: 480 kB)" in card


def test_the_card_says_where_it_comes_from_and_names_no_path(
    places: Path, found: dict[str, Artifact], exports: dict[str, Path]
) -> None:
    for folder in exports.values():
        for path in files_below(folder):
            assert str(places).encode() not in path.read_bytes(), path
    card = (exports["packed LoRA"] / "README.md").read_text()
    front_matter = yaml.safe_load(card.split("---\n")[1])
    assert front_matter["license"] == "mit"
    assert {"gptq", "4-bit", "compressed-tensors", "lora"} < set(front_matter["tags"])
    document = found["compress gptq"].key_document
    assert document["sources"]["model"]["files"]["model.safetensors"] in card
    assert document["sources"]["calibration"]["file"] in card
    assert "`my-lab`, a local folder" in card
    assert found["tune-lora gptq"].name in card
    assert "seed `0`" in card
    held = json.loads((exports["packed LoRA"] / "llmrepair.json").read_text())["artifacts"]
    assert {name: each["key"] for name, each in held.items()} == {
        artifact.name: artifact.key_document for artifact in (found["compress gptq"], found["tune-lora gptq"])
    }


def test_the_card_of_a_merged_model_tells_its_own_size(exports: dict[str, Path]) -> None:
    card = (exports["merged"] / "README.md").read_text()
    assert "| bits per weight | 32.00 in" in card
    facts = json.loads((exports["merged"] / "llmrepair.json").read_text())
    assert facts["weights_bytes"] == (exports["merged"] / "model.safetensors").stat().st_size
    assert "the same sum." in card


def test_the_card_warns_where_peft_starts_the_text_elsewhere(exports: dict[str, Path]) -> None:
    warning = "starting at position 6; in peft it starts right behind the prompt"
    assert warning in (exports["packed prompts"] / "README.md").read_text()
    facts = json.loads((exports["packed prompts"] / "llmrepair.json").read_text())
    facts["repair"]["prompts"][0]["length"] = 6
    assert warning not in render_card(facts)


def test_the_card_tells_a_hub_model_and_what_vllm_cannot_do(exports: dict[str, Path]) -> None:
    facts = json.loads((exports["packed"] / "llmrepair.json").read_text())
    facts["base_model"] = {"name": "someone/tiny", "hub": "someone/tiny", "commit": "c" * 40, "license": "apache-2.0"}
    card = render_card(facts)
    front_matter = yaml.safe_load(card.split("---\n")[1])
    assert front_matter["base_model"] == "someone/tiny"
    assert front_matter["base_model_relation"] == "quantized"
    assert "c" * 40 in card
    assert "from vllm import LLM" in card
    facts["compression"]["quantization"]["bits"] = 3
    assert "from vllm import" not in render_card(facts)
    assert "no kernels for packed weights of 3 bits" in render_card(facts)


@pytest.mark.parametrize("name", list(EXPORTS))
def test_the_code_of_the_card_is_python(name: str, exports: dict[str, Path]) -> None:
    blocks = (exports[name] / "README.md").read_text().split("```python\n")[1:]
    assert len(blocks) == 2
    for block in blocks:
        compile(block.split("```")[0], "card", "exec")
    assert ("enable_lora=True, max_lora_rank=8)" in blocks[1]) == ("LoRA" in name)


@pytest.mark.parametrize(
    "what, said",
    [
        ("tune-lora gptq", r"its packed weights \(\d\.\d\d bits each would become 32\)"),
        ("evaluate magnitude lora", r"its zeros \(a sparsity of 50\.0% would be gone\)"),
        ("compress gptq", "has no LoRA adapter"),
        ("evaluate gptq idp", "has no LoRA adapter"),
    ],
)
def test_merging_is_refused_where_it_destroys(
    what: str, said: str, places: Path, found: dict[str, Artifact], llmrepair: CommandLine, tmp_path: Path
) -> None:
    answer = llmrepair("export", found[what].key, "--to", tmp_path / "new", "--merge", "--runs", places / "runs")
    assert answer.code == 2
    error = answer.err.split("error: ")[1]
    assert re.search(said, error)
    assert "\n\nhint: leave --merge out" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("what", "repair"), [("evaluate gptq idp", "IDP"), ("tune-ptune gptq", "virtual tokens"), ("tune-lora gptq", "LoRA")]
)
def test_a_repair_beside_the_weights_is_refused_in_a_gguf_file(
    what: str, repair: str, places: Path, found: dict[str, Artifact], llmrepair: CommandLine, tmp_path: Path
) -> None:
    exported = found[what]
    answer = llmrepair("export", exported.name, "--to", tmp_path / "new", "--format", "gguf", "--runs", places / "runs")
    assert answer.code == 2
    assert f"a GGUF file has no place for the {repair} of `{exported.name}`" in answer.err
    assert f"hint: export it without its repair: `llmrepair export {found['compress gptq'].name}`" in answer.err
    assert not list(tmp_path.iterdir())


def test_merging_is_refused_for_quantised_values_that_are_stored_dense(found: dict[str, Artifact], tmp_path: Path) -> None:
    compressed, lora = found["compress magnitude"], found["tune-lora magnitude"]
    folder = shutil.copytree(compressed.path, tmp_path / compressed.key)
    document = compressed.key_document
    settings = {"method": "rtn", "bits": 3, "format": "dense", "sparsity": None}
    (folder / "key.json").write_text(json.dumps(document | {"config": document["config"] | settings}))
    problem = merge_problem(Parts(lora, Artifact("compress", compressed.key, folder), lora))
    assert problem is not None
    assert problem.message.endswith("would destroy the grid of 3 bits that its weights are on")


def test_json_says_what_was_written(places: Path, found: dict[str, Artifact], llmrepair: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "new"
    answer = llmrepair("export", found["compress gptq"].key[:8], "--to", folder, "--runs", places / "runs", "--json").json
    assert answer["path"] == str(folder)
    assert set(answer["files"]) == CHECKPOINT | OURS
    assert answer["bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    assert (folder / "model.safetensors").stat().st_mode & 0o077 == (folder / "README.md").stat().st_mode & 0o077


def test_places_that_are_refused(places: Path, found: dict[str, Artifact], llmrepair: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    key = found["compress gptq"].key
    for place, said in {
        tmp_path / "full": "is not empty",
        tmp_path / "full" / "mine.txt": "is a file",
        tmp_path / "full" / "mine.txt" / "below": "no folder can be made",
        places / "runs" / "compress" / "new": "in the folder of artifacts",
    }.items():
        answer = llmrepair("export", key, "--to", place, "--runs", places / "runs")
        assert (answer.code, said in answer.err, "hint: choose" in answer.err) == (2, True, True), answer.err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    assert llmrepair("export", key, "--to", tmp_path / "empty", "--runs", places / "runs").code == 0


def test_keys_that_are_refused(places: Path, llmrepair: CommandLine, tmp_path: Path) -> None:
    runs = places / "runs"
    report = llmrepair("report", "--model", places / "my-lab", "--runs", runs, "--json").json["key"]
    for key, said in {"0123": "no artifact has a key", report: "is no model and no repair"}.items():
        answer = llmrepair("export", key, "--to", tmp_path / "new", "--runs", runs)
        assert (answer.code, said in answer.err, "hint: " in answer.err) == (2, True, True), answer.err
    assert llmrepair("export", report, "--to", tmp_path / "new", "--runs", tmp_path / "nowhere").code == 2
    assert not list(tmp_path.iterdir())


def test_an_interruption_leaves_nothing(
    places: Path, found: dict[str, Artifact], llmrepair: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> str:
        assert len(list(tmp_path.glob(".new-*/model.safetensors"))) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(export_files, "render_card", interrupted)
    assert llmrepair("export", found["compress gptq"].key, "--to", tmp_path / "new", "--runs", places / "runs").code == 130
    assert not list(tmp_path.iterdir())


def test_a_dense_model_that_has_changed_and_a_damaged_artifact(
    places: Path, found: dict[str, Artifact], llmrepair: CommandLine, tmp_path: Path
) -> None:
    runs, config = tmp_path / "runs", places / "my-lab" / "config.json"
    shutil.copytree(places / "runs", runs)
    before = config.read_text()
    config.write_text(before.replace("256", "512"))
    try:
        answer = llmrepair("export", found["compress none"].key, "--to", tmp_path / "new", "--runs", runs)
        assert (answer.code, "its config.json is gone or has changed" in answer.err) == (2, True)
        other = llmrepair("export", found["compress gptq"].key, "--to", tmp_path / "other", "--runs", runs)
        assert other.code == 0  # its weights are in the store
        assert "license" not in yaml.safe_load((tmp_path / "other" / "README.md").read_text().split("---\n")[1])
    finally:
        config.write_text(before)
    weights = runs / found["tune-lora gptq"].name / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    answer = llmrepair("export", found["evaluate gptq lora"].key, "--to", tmp_path / "new", "--runs", runs)
    assert (answer.code, "is damaged or was removed" in answer.err) == (1, True)
    assert not (tmp_path / "new").exists()


COMMIT = "0123456789" * 4


def test_a_hub_model_is_exported_from_the_cache(
    llmrepair: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, runs, lab = tmp_path / "hub" / "models--someone--tiny", tmp_path / "runs", model_folder("lab")
    assert lab is not None
    shutil.copytree(lab, repository / "snapshots" / COMMIT)
    (repository / "snapshots" / COMMIT / "README.md").write_text("---\nlicense: mit\n---\n")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.MonkeyPatch.context() as answering:  # as the Hub would, were it there
        answering.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(repository / "snapshots" / COMMIT))
        key = llmrepair("compress", "--model", "someone/tiny", *DENSE, "--runs", runs, "--json").json["key"]

    answer = llmrepair("export", key, "--to", tmp_path / "new", "--runs", runs)
    assert answer.code == 0, answer.err
    assert {path.name for path in (tmp_path / "new").iterdir()} == CHECKPOINT | OURS
    assert (tmp_path / "new" / "model.safetensors").read_bytes() == (lab / "model.safetensors").read_bytes()
    front_matter = yaml.safe_load((tmp_path / "new" / "README.md").read_text().split("---\n")[1])
    assert (front_matter["base_model"], front_matter["license"]) == ("someone/tiny", "mit")

    shutil.rmtree(repository)
    answer = llmrepair("export", key, "--to", tmp_path / "newer", "--runs", runs)
    assert (answer.code, "not in the local Hub cache, nor reachable" in answer.err) == (2, True)


def test_copying_imports_nothing_heavy(places: Path, found: dict[str, Artifact], tmp_path: Path) -> None:
    arguments = ["export", found["evaluate gptq idp"].key, "--to", str(tmp_path / "new"), "--runs", str(places / "runs")]
    heavy = "{'torch', 'transformers', 'lm_eval'} & {*sys.modules}"
    check = f"import sys; from llmrepair.cli.main import run; run({arguments}); print({heavy})"
    answer = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert (tmp_path / "new" / "README.md").is_file()
    assert answer.stdout.splitlines()[-1] == "set()"
