"""llmrepair compress --model lab --method gptq --bits 3"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from llmrepair.models.loading import compressible_layers, load_model, load_tokenizer, pick_device
from llmrepair.models.text import pack_rows
from llmrepair.pipeline.errors import Problem, WorkError
from llmrepair.pipeline.stage import Context
from llmrepair.stages.compress.magnitude import magnitude_mask
from llmrepair.stages.compress.measure import measure
from llmrepair.stages.sources import load_texts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llmrepair.stages.compress.stage import Compress, CompressConfig


def run(stage: Compress, context: Context) -> dict[str, Any]:
    config, source = stage.config, stage.model
    device = pick_device(context.runtime.device)
    model = load_model(source.location, source.revision, config.dtype, device, config.trust_remote_code)
    if config.method == "none":
        return measure(weight_files(source.location, source.revision), model)

    tokenizer = load_tokenizer(source.location, source.revision, config.trust_remote_code)
    if config.method == "magnitude":
        _prune_by_magnitude(model, config)
    else:
        rows = calibration_rows(stage, tokenizer) if stage.calibration is not None else None
        _oneshot(model, config, rows, tokenizer)

    checkpoint = context.folder / "checkpoint"
    model.save_pretrained(checkpoint, save_compressed=True)
    (checkpoint / "recipe.yaml").unlink(missing_ok=True)  # holds tags that only an unsafe YAML loader reads
    tokenizer.save_pretrained(checkpoint)
    reloaded = load_model(str(checkpoint), None, config.dtype, torch.device("cpu"), config.trust_remote_code)
    return measure(weight_files(str(checkpoint), None), reloaded)


def calibration_rows(stage: Compress, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Rows [N, seq_len] of calibration text."""
    config = stage.config
    assert stage.calibration is not None
    rows = pack_rows(load_texts(config.calibration, stage.calibration), tokenizer, config.samples, config.seq_len)
    if not len(rows):
        message = f"`{config.calibration}` has not enough text for one row of {config.seq_len} tokens"
        raise WorkError(Problem(message, "give more text with --calibration, or a smaller --seq-len"))
    return rows


def _prune_by_magnitude(model: PreTrainedModel, config: CompressConfig) -> None:
    block = None if config.pattern == "unstructured" else int(config.pattern.split(":")[1])
    for layer in compressible_layers(model).values():
        layer.weight.mul_(magnitude_mask(layer.weight, config.sparsity, block))


def _oneshot(
    model: PreTrainedModel, config: CompressConfig, rows: torch.Tensor | None, tokenizer: PreTrainedTokenizerBase
) -> None:
    from datasets import Dataset
    from llmcompressor import oneshot  # type: ignore[attr-defined]

    from llmrepair.stages.compress.recipe import modifier

    logging.getLogger("torch.fx").setLevel(logging.ERROR)  # warns of how llm-compressor calls it
    options: dict[str, Any] = {}
    if rows is not None:
        columns = {"input_ids": rows.tolist(), "attention_mask": torch.ones_like(rows).tolist()}
        options = {
            "dataset": Dataset.from_dict(columns),
            "num_calibration_samples": len(rows),
            "max_seq_length": rows.shape[1],
            # By default the rows come in an unseeded random order, and sums over them round differently in each.
            "shuffle_calibration_samples": False,
        }
    model.requires_grad_(True)  # llm-compressor expects a model as it was loaded
    oneshot(
        model=model,
        processor=tokenizer,  # type: ignore[arg-type]
        recipe=modifier(config),
        **options,
    )


def weight_files(location: str, revision: str | None) -> list[Path]:
    """A checkpoint's safetensors files on this machine."""
    if revision is None:
        return sorted(Path(location).glob("*.safetensors"))
    from huggingface_hub import snapshot_download

    return sorted(Path(snapshot_download(location, revision=revision, allow_patterns="*.safetensors")).glob("*.safetensors"))
