"""llmrepair compress --model lab --method gptq --bits 3"""

from __future__ import annotations

import gc
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import torch

from llmrepair.models.loading import compressible_layers, load_model, load_tokenizer, pick_device
from llmrepair.models.text import pack_rows
from llmrepair.models.weight_files import weight_files
from llmrepair.pipeline.errors import Problem, WorkError
from llmrepair.pipeline.stage import Context
from llmrepair.stages.checkpoints.grid import Grid
from llmrepair.stages.checkpoints.measure import measure
from llmrepair.stages.checkpoints.reload import five_tokens, reload_in_fresh_process, some_logits
from llmrepair.stages.checkpoints.save import save_checkpoint
from llmrepair.stages.compress.compressor import Compressor
from llmrepair.stages.compress.layer import LayerRecipe
from llmrepair.stages.compress.masks import Pattern
from llmrepair.stages.compress.memory import weights_in_memory
from llmrepair.stages.compress.rows import holding_device, rows_at_once
from llmrepair.stages.sources.models import hub_snapshot
from llmrepair.stages.sources.texts import load_texts, tell_fewer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llmrepair.stages.compress.config import CompressConfig
    from llmrepair.stages.compress.methods.base import Method
    from llmrepair.stages.compress.stage import Compress
    from llmrepair.stages.sources.models import ModelSource


def run(stage: Compress, context: Context) -> dict[str, Any]:
    config, source = stage.config, stage.model
    dense = _files_of(source)
    device = holding_device(weights_in_memory(source, config), pick_device(context.runtime.device))
    model = load_model(source.location, source.revision, config.dtype, device, config.trust_remote_code)
    if not stage.method.parts:
        return measure(dense, model)

    tokenizer = load_tokenizer(source.location, source.revision, config.trust_remote_code)
    rows = calibration_rows(stage, tokenizer)
    tell_fewer(context.reporter, config.calibration, len(rows), config.samples, "rows of calibration text")
    before = five_tokens(model, tokenizer, rows)
    compressor = compress_layers_of(model, rows, config, stage.method, context)
    checkpoint = context.folder / "checkpoint"
    save_checkpoint(model, compressor.quantised, config.format, checkpoint)
    tokenizer.save_pretrained(checkpoint)
    expected = some_logits(model, rows)
    layers = compressor.told
    del model, compressor  # the fresh process needs their memory
    gc.collect()  # a traced model is held in cycles
    torch.cuda.empty_cache()
    reloaded = reload_in_fresh_process(checkpoint, config.dtype, device, config.trust_remote_code, rows, expected, context.work)
    context.peaks.append(reloaded.memory_bytes)
    return reloaded.measures | {
        "calibration_rows": len(rows),
        "compression_ratio": sum(path.stat().st_size for path in dense) / reloaded.measures["size_bytes"],
        "output_error": mean(layer["output_error"] for layer in layers),
        "reload_difference": reloaded.difference,
        "five_tokens": {"before": before, "after": reloaded.five_tokens},
        "layers": layers,
    }


def calibration_rows(stage: Compress, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Rows [N, seq_len] of calibration text."""
    config = stage.config
    assert stage.calibration is not None  # only the dense model has none
    rows = pack_rows(load_texts(config.calibration, stage.calibration), tokenizer, config.samples, config.seq_len)
    if not len(rows):
        message = f"`{config.calibration}` has not enough text for one row of {config.seq_len} tokens"
        raise WorkError(Problem(message, "give more text with --calibration, or a smaller --seq-len"))
    return rows


def compress_layers_of(
    model: PreTrainedModel, rows: torch.Tensor, config: CompressConfig, method: Method, context: Context
) -> Compressor:
    """Compresses a model in place, on calibration text [N, T]."""
    from llmrepair.stages.compress.calibration import calibrate  # takes seconds to import

    device = pick_device(context.runtime.device)
    batch_size = rows_at_once(config, context.runtime)
    layers = compressible_layers(model)
    compressor = Compressor(layers, recipe_of(config, method), context.reporter)
    if method.quantiser is not None:
        method.quantiser.prepare(model, list(layers), rows, batch_size, device, grid_of(config))
    with compressor.showing():
        calibrate(model, layers, rows, batch_size, device, compressor.visit)
    if missed := sorted(layers.keys() - {layer["name"] for layer in compressor.told}):
        message = f"{len(missed)} of {len(layers)} layers, such as `{missed[0]}`, were never come across in the model's blocks"
        raise WorkError(Problem(message, "the code of this family cannot be followed; use --method none, or report it"))
    compressor.tell_weak_calibration()
    return compressor


def recipe_of(config: CompressConfig, method: Method) -> LayerRecipe:
    """What the options do to each layer."""
    return LayerRecipe(
        pruner=method.pruner,
        pattern=Pattern(config.sparsity, None if config.pattern == "unstructured" else int(config.pattern.split(":")[1])),
        grid=grid_of(config) if method.quantiser else None,
        compensate=method.compensates,
        activation_order=method.orders_columns and config.column_order == "activation",
        damping=config.damping,
    )


def grid_of(config: CompressConfig) -> Grid:
    scales = torch.float16 if config.format == "gptq" else getattr(torch, config.dtype)  # the GPTQ format knows no other
    return Grid(config.bits, config.group_size, not config.asymmetric, scales)


def _files_of(source: ModelSource) -> list[Path]:
    """A model's weight files on this machine."""
    folder = Path(source.location) if source.revision is None else hub_snapshot(source.location, source.revision)
    return weight_files(folder)
