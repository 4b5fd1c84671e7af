"""Time and memory of GPTQ and SparseGPT beside llm-compressor's own `oneshot` and GPTQModel, on one random Llama or Qwen3-MoE.

python benchmarks/compress.py [--size 100m|experts] [--samples 32] [--seq-len 256] [--only gptq] [--repeats 1] [--device cuda]

GPTQ rounds to 4 bits in groups of 128, columns from left to right; SparseGPT drops half of the weights. Each run is in a
fresh process with the same rows of random words, of which few are frequent. `ours` is what calibrates and solves, `stage`
the whole command: reading, compressing, saving, and reloading in another process. llm-compressor is called as in its
examples, in memory. Peak memory is of the whole process, libraries and model included. The error is that of the layers'
outputs on the dense model's inputs, ||(W - W') X||^2 / ||W X||^2, as the mean over layers. `experts` has 64 of them in each
of 4 layers; each is calibrated by the tokens that the router sends to it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import chdir
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3MoeConfig,
)

from llmrepair.models.experts import experts_as_layers
from llmrepair.models.gptq import import_gptqmodel
from llmrepair.models.loading import compressible_layers, load_model
from llmrepair.models.second_moment import Inputs
from llmrepair.pipeline.progress import Reporter
from llmrepair.pipeline.record import peak_memory
from llmrepair.pipeline.stage import Context, Runtime
from llmrepair.stages.compress.calibration import calibrate
from llmrepair.stages.compress.config import CompressConfig
from llmrepair.stages.compress.experts import experts_followed
from llmrepair.stages.compress.layer import output_error
from llmrepair.stages.compress.methods import METHODS as METHODS_BY_NAME
from llmrepair.stages.compress.run import compress_layers_of

VOCABULARY = 32_000
SIZES = {
    "10m": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4},
    "100m": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12},
    "1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 16},
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
}
EXPERTS = {
    "hidden_size": 512,
    "moe_intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "num_experts": 64,
    "num_experts_per_tok": 8,
}
METHODS: dict[str, dict[str, Any]] = {
    "gptq": {"method": "gptq", "bits": 4, "group_size": 128, "column_order": "left-to-right"},
    "sparsegpt": {"method": "sparsegpt", "sparsity": 0.5},
}


class Subject(NamedTuple):
    """What is compressed; `folder` holds the model, its tokenizer and the rows, as tensors and as text."""

    folder: Path
    device: str
    has_experts: bool

    @property
    def dtype(self) -> str:
        return "bfloat16" if self.device == "cuda" else "float32"

    @property
    def text(self) -> Path:
        return self.folder / "rows.jsonl"

    def rows(self) -> torch.Tensor:
        return load_file(self.folder / "rows.safetensors")["rows"]

    def model(self) -> PreTrainedModel:
        return load_model(str(self.folder), None, self.dtype, torch.device("cpu"))


class Result(NamedTuple):
    """One run. CPU seconds tell more than seconds where the machine has other work."""

    seconds: float
    cpu_seconds: float
    peak_bytes: dict[str, int]


def make_subject(folder: Path, size: str, samples: int, seq_len: int, device: str) -> Subject:
    subject = Subject(folder, device, size == "experts")
    torch.manual_seed(0)
    words: dict[str, Any] = {"vocab_size": VOCABULARY, "max_position_embeddings": 4096, "tie_word_embeddings": True}
    config: PreTrainedConfig = Qwen3MoeConfig(**words, **EXPERTS) if size == "experts" else LlamaConfig(**words, **SIZES[size])
    AutoModelForCausalLM.from_config(config).to(getattr(torch, subject.dtype)).save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel({f"w{number}": number for number in range(VOCABULARY)}, unk_token="w0"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(folder)
    frequencies = 1 / torch.arange(1, VOCABULARY + 1)
    rows = frequencies.multinomial(samples * seq_len, replacement=True).view(samples, seq_len)
    save_file({"rows": rows}, folder / "rows.safetensors")
    texts = (" ".join(f"w{number}" for number in row) for row in rows.tolist())
    subject.text.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return subject


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds, CPU seconds (child processes included) and what the work returned."""
    start, cpu_start = time.perf_counter(), sum(os.times()[:4])
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, sum(os.times()[:4]) - cpu_start, result


def save_weights(model: PreTrainedModel, path: Path) -> None:
    with experts_as_layers(model):
        weights = {name: layer.weight.detach().cpu() for name, layer in compressible_layers(model).items()}
    save_file({name: weight.contiguous() for name, weight in as_named_here(weights).items()}, path)


def as_named_here(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Under our names for experts, whose gates and upward projections llm-compressor makes two layers of."""
    named = {re.sub(r"\.experts\.(\d+)\.(\w+)$", r".experts.\2.\1", name): weight for name, weight in weights.items()}
    gates = [name for name in named if ".experts.gate_proj." in name]
    for gate in gates:
        both = [named.pop(name) for name in (gate, gate.replace("gate_proj", "up_proj"))]
        named[gate.replace("gate_proj", "gate_up_proj")] = torch.cat(both)
    return named


def ours(subject: Subject, options: dict[str, Any], weights: Path) -> Result:
    model, rows = subject.model(), subject.rows()
    config = CompressConfig(**options, dtype=subject.dtype)
    context = Context(subject.folder, subject.folder, {}, Runtime(device=subject.device), Reporter(quiet=True))
    with experts_followed(model, rows):
        seconds, cpu_seconds, _ = timed(
            lambda: compress_layers_of(model, rows, config, METHODS_BY_NAME[config.method], context)
        )
    result = Result(seconds, cpu_seconds, peak_memory())
    save_weights(model, weights)
    return result


def stage(subject: Subject, options: dict[str, Any], weights: Path) -> Result:
    """`llmrepair compress`, from its start to its end. The memory is not that of the process that reloads."""
    samples, seq_len = subject.rows().shape
    settings = options | {"samples": samples, "seq_len": seq_len, "calibration": subject.text, "dtype": subject.dtype}
    settings |= {"model": subject.folder, "device": subject.device}
    flags = [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-c", "from llmrepair.cli.main import main; main()", "compress", "--json", *flags]
    with tempfile.TemporaryDirectory() as runs:
        seconds, cpu_seconds, done = timed(
            partial(subprocess.run, [*command, "--runs", runs], check=True, stdout=subprocess.PIPE)
        )
        artifact = Path(json.loads(done.stdout)["path"])
        record = json.loads((artifact / "record.json").read_text(encoding="utf-8"))
        save_weights(load_model(str(artifact / "checkpoint"), None, subject.dtype, torch.device("cpu")), weights)
    return Result(seconds, cpu_seconds, record["peak_memory_bytes"])


def llm_compressor(subject: Subject, options: dict[str, Any], weights: Path) -> Result:
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.pruning import SparseGPTModifier

    model, rows = subject.model(), subject.rows()
    if options["method"] == "gptq":
        recipe = GPTQModifier(targets="Linear", scheme="W4A16", ignore=["lm_head"], actorder=None)
    else:
        recipe = SparseGPTModifier(sparsity=options["sparsity"], mask_structure="0:0", ignore=["re:.*lm_head"])
    dataset = Dataset.from_dict({"input_ids": rows.tolist(), "attention_mask": torch.ones_like(rows).tolist()})
    settings: dict[str, Any] = {"max_seq_length": rows.shape[1], "num_calibration_samples": len(rows)}
    settings["moe_calibrate_all_experts"] = False
    seconds, cpu_seconds, _ = timed(lambda: oneshot(model=model, dataset=dataset, recipe=recipe, **settings))
    result = Result(seconds, cpu_seconds, peak_memory())
    save_weights(model, weights)
    return result


def gptqmodel(subject: Subject, options: dict[str, Any], weights: Path) -> Result:
    """Its time has the reading of the model in it, which it does layer by layer."""
    rows = subject.rows()
    import_gptqmodel()
    seconds, cpu_seconds, model = timed(lambda: gptqmodel_quantised(str(subject.folder), rows, subject.dtype, options))
    result = Result(seconds, cpu_seconds, peak_memory())
    with tempfile.TemporaryDirectory() as saved:
        model.save(saved)
        save_weights(load_model(saved, None, subject.dtype, torch.device("cpu")), weights)
    return result


def gptqmodel_quantised(model: str, rows: torch.Tensor, dtype: str, options: dict[str, Any]) -> Any:
    """GPTQModel's own model object, quantised.

    Args:
        model: folder of the dense model.
        rows: token ids [N, T].
        options: as of `llmrepair compress`.
    """
    import_gptqmodel()
    from gptqmodel import GPTQModel, QuantizeConfig

    config = QuantizeConfig(
        bits=options["bits"],
        group_size=options.get("group_size", -1),
        sym=not options.get("asymmetric", False),
        desc_act=options.get("column_order") != "left-to-right",
        act_group_aware=False,
    )
    examples = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows.tolist()]
    with tempfile.TemporaryDirectory() as folder, chdir(folder):  # it leaves its log where it runs
        quantised = GPTQModel.load(model, config, dtype=getattr(torch, dtype))
        quantised.quantize(examples, batch_size=1)
    return quantised


Side = Callable[[Subject, dict[str, Any], Path], Result]
SIDES: dict[str, Side] = {"ours": ours, "stage": stage, "llm-compressor": llm_compressor, "GPTQModel": gptqmodel}


def say_nothing() -> None:
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def fresh_process() -> ProcessPoolExecutor:
    """What it and its libraries say is not shown; its exception is."""
    return ProcessPoolExecutor(1, get_context("spawn"), initializer=say_nothing)


def output_errors(subject: Subject, weights: dict[str, Path]) -> dict[str, float]:
    """Of each side the mean error of its layers' outputs."""
    model = subject.model()
    errors: dict[str, list[float]] = defaultdict(list)

    def compare(names: list[str], inputs: Inputs) -> None:
        for side, path in weights.items():
            with safe_open(path, "pt") as file:
                new = {name: file.get_tensor(name).to(inputs.hessian.device) for name in names}
            errors[side] += [output_error(layers[name].weight, new[name], inputs.hessian) for name in names]

    with experts_as_layers(model):
        layers = compressible_layers(model)
        calibrate(model, layers, subject.rows(), 1, torch.device(subject.device), compare)
    return {side: statistics.mean(values) for side, values in errors.items()}


def measure(subject: Subject, name: str, repeats: int) -> None:
    options = METHODS[name]
    sides = {side: run for side, run in SIDES.items() if run is not gptqmodel or (name == "gptq" and not subject.has_experts)}
    weights = {side: subject.folder / f"{side}.weights" for side in sides}
    results: dict[str, list[Result]] = defaultdict(list)
    for _ in range(repeats):
        for side, run in sides.items():
            with fresh_process() as process:
                results[side].append(process.submit(run, subject, options, weights[side]).result())
    errors = output_errors(subject, weights)
    tokens = subject.rows().numel()
    for side, runs in results.items():
        print(line(f"{name}, {side}", runs, results["ours"], tokens, errors[side]), flush=True)


def line(name: str, runs: list[Result], ours: list[Result], tokens: int, error: float) -> str:
    seconds, cpu_seconds = (statistics.median(run[i] for run in runs) for i in (0, 1))
    ratio, cpu_ratio = (statistics.median(a[i] / b[i] for a, b in zip(runs, ours, strict=True)) for i in (0, 1))
    peak = ", ".join(f"{where} {max(run.peak_bytes[where] for run in runs) / 1e6:.0f} MB" for where in runs[0].peak_bytes)
    times = f"{seconds:7.1f} s ({ratio:4.2f} x)  CPU {cpu_seconds:7.1f} s ({cpu_ratio:4.2f} x)"
    return f"{name:26} {times}  {tokens / seconds:7.0f} tokens/s  peak {peak}  error {error:.5f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=(*SIZES, "experts"), default="100m")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--only", choices=tuple(METHODS))
    options = parser.parse_args()
    quiet(options.device)
    with tempfile.TemporaryDirectory() as folder:
        subject = make_subject(Path(folder), options.size, options.samples, options.seq_len, options.device)
        print(
            f"{options.size}, {options.device}, {torch.get_num_threads()} threads, {options.samples} x {options.seq_len} tokens"
        )
        for name in [options.only] if options.only else METHODS:
            measure(subject, name, options.repeats)


def quiet(device: str) -> None:
    """Sets what the processes that are started inherit."""
    logging.disable(logging.WARNING)
    os.environ["LLM_COMPRESSOR_LOG_LEVEL"] = "ERROR"
    os.environ["GPTQMODEL_CPU_WORKERS"] = "2"  # with 1, the default on two cores, it waits for itself
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the others would take any GPU that they see


if __name__ == "__main__":
    main()
