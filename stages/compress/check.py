"""What only a look at the model's shapes can tell about a compression; no weights are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmrepair.models.loading import causal_architectures, compressible_layers, meta_model
from llmrepair.pipeline.errors import Problem
from llmrepair.stages.compress.gptq_format import reading_problems
from llmrepair.stages.sources import load_config

if TYPE_CHECKING:
    from llmrepair.stages.compress.stage import Compress


def problems_with_model(stage: Compress) -> list[Problem]:
    config = stage.config
    model_config = load_config(stage.model)
    architectures = model_config.get("architectures") or []
    if not (config.trust_remote_code or set(architectures) & causal_architectures()):
        what = ", ".join(architectures) or "its config.json names no architecture"
        return [
            Problem(
                f"`{config.model}` is no causal language model ({what})",
                "give a model such as Llama, OPT, GPT-2 or Qwen",
                "model",
            )
        ]
    settings = model_config.get("quantization_config")
    if config.method == "none":
        return [] if settings is None else _problems_with_quantised(config.model, settings)
    if settings is not None:
        hint = "give the dense model with --model, or keep this one as it is with --method none"
        return [Problem(f"`{config.model}` is quantised already", hint, "model")]
    model = meta_model(stage.model.location, stage.model.revision, config.trust_remote_code)
    columns = sorted({layer.in_features for layer in compressible_layers(model).values()})
    return [*_shape_problems(stage, columns), *_length_problems(stage, getattr(model.config, "max_position_embeddings", None))]


def _problems_with_quantised(model: str, settings: dict[str, Any]) -> list[Problem]:
    method = settings.get("quant_method")
    if method == "gptq":
        return reading_problems(model, settings)
    if method == "compressed-tensors":
        return []
    hint = "give a checkpoint of compressed-tensors or GPTQ, or the dense model"
    return [Problem(f"`{model}` is quantised by {method}, which cannot be read here", hint, "model")]


def _shape_problems(stage: Compress, columns: list[int]) -> list[Problem]:
    problems = []
    if not columns:
        hint = "give a model whose layers are `torch.nn.Linear`, such as Llama or OPT, or --method none"
        problems.append(Problem(f"`{stage.config.model}` has no linear layers that could be compressed", hint, "model"))
    identity = stage.config.identity()
    group_size, pattern = identity["group_size"] or -1, identity["pattern"] or "unstructured"
    if group_size != -1 and (odd := [count for count in columns if count % group_size]):
        hint = f"give --group-size -1 (a whole row) or a divisor of {_common_divisor(columns)}"
        problems.append(
            Problem(f"a group size of {group_size} does not divide layers with {_listed(odd)} columns", hint, "group_size")
        )
    if pattern != "unstructured":
        kept, block = map(int, pattern.split(":"))
        if identity["sparsity"] != 1 - kept / block:
            hint = f"give --sparsity {1 - kept / block}, or leave it out"
            problems.append(Problem(f"the pattern {pattern} has a sparsity of {1 - kept / block}", hint, "sparsity"))
        if odd := [count for count in columns if count % block]:
            hint = "give --pattern unstructured"
            problems.append(
                Problem(f"the pattern {pattern} does not divide layers with {_listed(odd)} columns", hint, "pattern")
            )
    return problems


def _length_problems(stage: Compress, longest: int | None) -> list[Problem]:
    seq_len = stage.config.identity()["seq_len"]
    if seq_len is None or longest is None or seq_len <= longest:
        return []
    return [
        Problem(
            f"rows of {seq_len} tokens are longer than the model's {longest} positions",
            f"give --seq-len {longest} or less",
            "seq_len",
        )
    ]


def _common_divisor(columns: list[int]) -> int:
    import math

    return math.gcd(*columns)


def _listed(counts: list[int]) -> str:
    return " and ".join(map(str, counts))
