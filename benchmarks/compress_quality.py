"""What compression costs, beside GPTQModel on the same calibration rows: accuracy of `lab_qa`, bits per byte of texts.

python benchmarks/compress_quality.py [--model FOLDER --text FILE] [--no-lab] [--draws 3] [--only 'gptq 3']

The models are `lab` and `lab-opt` and, if it is given, that in FOLDER: it is calibrated on nine tenths of the texts in FILE
(a JSON list of strings, or one {"text": ...} per line) and scored on the rest. Each score is the mean over draws of
calibration rows. GPTQModel gets the same bits, group size, symmetry and order, everything else is its default; its checkpoint
is scored by the same command with `--method none`.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import Executor
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from compress import fresh_process, gptqmodel_quantised, quiet
from transformers import LlamaForCausalLM

from llmrepair.cli.main import run
from llmrepair.models.loading import load_model, load_tokenizer
from llmrepair.models.text import pack_rows
from llmrepair.pipeline.progress import Reporter
from llmrepair.pipeline.stage import Context, Runtime
from llmrepair.stages.compress.config import CompressConfig
from llmrepair.stages.compress.methods import METHODS
from llmrepair.stages.compress.run import compress_layers_of
from llmrepair.stages.sources.lab import LAB_MODELS
from llmrepair.stages.sources.models import model_folder
from llmrepair.stages.sources.texts import load_texts

SAMPLES, SEQ_LEN = 128, 128
LEFT_TO_RIGHT = {"column_order": "left-to-right"}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "gptq 4 bits, group 32": {"method": "gptq", "bits": 4, "group_size": 32, **LEFT_TO_RIGHT},
    "gptq 4 bits asymmetric": {"method": "gptq", "bits": 4, "asymmetric": True, **LEFT_TO_RIGHT},
    "gptq 3 bits, group 32": {"method": "gptq", "bits": 3, "group_size": 32, **LEFT_TO_RIGHT},
    "gptq 3 bits": {"method": "gptq", "bits": 3, **LEFT_TO_RIGHT},
    "gptq 3 bits, group 32, ordered": {"method": "gptq", "bits": 3, "group_size": 32},
    "gptq 3 bits, ordered": {"method": "gptq", "bits": 3},
    "rtn 3 bits, group 32": {"method": "rtn", "bits": 3, "group_size": 32},
    "sparsegpt 2:4": {"method": "sparsegpt", "pattern": "2:4"},
    "sparsegpt+gptq 50 %, 4 bits, group 32": {"method": "sparsegpt+gptq", "bits": 4, "group_size": 32},
}
TASK = """
task: held_out_text
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: bits_per_byte}}]
"""
METRICS = {"exact_match": 1, "bits_per_byte": -1}
"""What is shown, and whether more of it is better."""
Scores = dict[str, float]


class Subject(NamedTuple):
    """What is compressed and how it is scored; `folder` is for what is made on the way."""

    model: str
    tasks: str
    texts: list[str]
    folder: Path

    @property
    def name(self) -> str:
        return Path(self.model).name

    @property
    def model_folder(self) -> str:
        return str(model_folder(self.model))


def write_texts(texts: Iterable[str], path: Path) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def lab_subject(model: str, folder: Path) -> Subject:
    folder.mkdir()
    return Subject(model, "lab_qa,lab_text", list(load_texts("lab", {})), folder)


def subject_of(model: Path, text: Path, folder: Path) -> Subject:
    content = text.read_text(encoding="utf-8")
    texts = json.loads(content) if text.suffix == ".json" else [json.loads(line)["text"] for line in content.splitlines()]
    held_out = len(texts) // 10
    folder.mkdir()
    write_texts(texts[-held_out:], folder / "held-out.jsonl")
    (folder / "held_out_text.yaml").write_text(TASK.format(path=folder / "held-out.jsonl"), encoding="utf-8")
    padded(model, folder / model.name)
    return Subject(str(folder / model.name), "held_out_text", texts[:-held_out], folder)


def padded(model: Path, to: Path) -> None:
    """The same Llama with zeros behind its inner features, up to a multiple of 64: both sides need whole groups."""
    dense = LlamaForCausalLM.from_pretrained(model)
    config = dense.config
    missing = -config.intermediate_size % 64
    for layer in dense.model.layers:
        for narrow, sides in (
            (layer.mlp.gate_proj, (0, 0, 0, missing)),
            (layer.mlp.up_proj, (0, 0, 0, missing)),
            (layer.mlp.down_proj, (0, missing)),
        ):
            narrow.weight = torch.nn.Parameter(torch.nn.functional.pad(narrow.weight, sides))
    config.intermediate_size += missing
    dense.save_pretrained(to)
    load_tokenizer(str(model), None).save_pretrained(to)


def compressed(subject: Subject, options: dict[str, Any], rows: torch.Tensor, to: Path) -> None:
    model = load_model(subject.model_folder, None, "float32", torch.device("cpu"))
    context = Context(to, to, {}, Runtime(device="cpu"), Reporter(quiet=True))
    config = CompressConfig(**options, dtype="float32")
    compress_layers_of(model, rows, config, METHODS[config.method], context)
    model.save_pretrained(to)


def by_gptqmodel(subject: Subject, options: dict[str, Any], rows: torch.Tensor, to: Path) -> None:
    gptqmodel_quantised(subject.model_folder, rows, "float32", options).save(str(to))


def scores(subject: Subject, model: str) -> Scores:
    """What `llmrepair eval` answers."""
    flags = {"tasks": subject.tasks, "include-path": subject.folder, "runs": subject.folder / "runs", "device": "cpu"}
    command = ["eval", "--model", model, "--method", "none", "--json"]
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = run(command + [str(text) for name, value in flags.items() for text in (f"--{name}", value)])
    assert code == 0, err.getvalue()
    tasks = json.loads(out.getvalue())["metrics"]["tasks"].values()
    return {metric: task[metric]["value"] for metric in METRICS for task in tasks if metric in task}


def measure(subject: Subject, only: str, draws: int) -> None:
    print(f"{subject.name}, dense: {shown(scores(subject, subject.model))}", flush=True)
    tokenizer = load_tokenizer(subject.model_folder, None)
    results: dict[str, list[tuple[Scores, Scores | None]]] = defaultdict(list)
    for draw in range(draws):
        texts = random.Random(draw).sample(subject.texts, len(subject.texts))
        rows = pack_rows(texts, tokenizer, SAMPLES, SEQ_LEN)
        with fresh_process() as process:
            for name, options in CONFIGURATIONS.items():
                if only in name:
                    results[name].append(both_sides(subject, options, rows, process, subject.folder / f"{name}-{draw}"))
    for name, pairs in results.items():
        print(f"{subject.name}, {name:37} {compared(pairs)}", flush=True)


def both_sides(
    subject: Subject, options: dict[str, Any], rows: torch.Tensor, process: Executor, folder: Path
) -> tuple[Scores, Scores | None]:
    """Scores of ours and, where GPTQModel has the method, of its."""
    load_tokenizer(subject.model_folder, None).save_pretrained(folder / "ours")
    compressed(subject, options, rows, folder / "ours")
    ours = scores(subject, str(folder / "ours"))
    if options["method"] != "gptq":
        return ours, None
    process.submit(by_gptqmodel, subject, options, rows, folder / "theirs").result()
    load_tokenizer(subject.model_folder, None).save_pretrained(folder / "theirs")
    return ours, scores(subject, str(folder / "theirs"))


def compared(pairs: list[tuple[Scores, Scores | None]]) -> str:
    means = mean_scores([ours for ours, _ in pairs])
    others = mean_scores([theirs for _, theirs in pairs if theirs])
    if not others:
        return shown(means)
    worse = {name: (others[name] - means[name]) * METRICS[name] / others[name] for name in means}
    said = ", ".join(f"{name} worse by {share:+.1%}" for name, share in worse.items())
    return f"{shown(means)}  GPTQModel: {shown(others)}  {said}"


def mean_scores(several: list[Scores]) -> Scores:
    return {name: statistics.mean(each[name] for each in several) for name in several[0]} if several else {}


def shown(values: Scores) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a Llama")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--only", default="", help="configurations whose name holds this")
    parser.add_argument("--no-lab", action="store_true", help="leave out the lab models")
    options = parser.parse_args()
    if bool(options.model) != bool(options.text):
        parser.error("give --model and --text together")
    quiet("cpu")
    with tempfile.TemporaryDirectory() as folder:
        subjects = [] if options.no_lab else [lab_subject(model, Path(folder, model)) for model in LAB_MODELS]
        if options.model:
            subjects.append(subject_of(options.model, options.text, Path(folder, "given")))
        for subject in subjects:
            measure(subject, options.only, options.draws)


if __name__ == "__main__":
    main()
