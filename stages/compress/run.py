"""llmrepair compress --model lab --method gptq --bits 3"""

from __future__ import annotations

import gc
import json
import shutil
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from llmrepair.models.loading import compressible_layers, load_tokenizer, pick_device
from llmrepair.models.text import pack_rows
from llmrepair.models.weight_files import weight_files
from llmrepair.pipeline.artifact import write_json
from llmrepair.pipeline.errors import Problem, WorkError
from llmrepair.pipeline.stage import Context
from llmrepair.stages.checkpoints.grid import Grid
from llmrepair.stages.checkpoints.measure import measure
from llmrepair.stages.checkpoints.reload import five_tokens, reload_in_fresh_process, some_logits
from llmrepair.stages.checkpoints.save import save_checkpoint
from llmrepair.stages.compress.compressor import Compressor
from llmrepair.stages.compress.experts import experts_followed
from llmrepair.stages.compress.layer import LayerRecipe
from llmrepair.stages.compress.masks import Pattern
from llmrepair.stages.compress.memory import weights_in_memory
from llmrepair.stages.compress.rows import holding_device, rows_at_once
from llmrepair.stages.sources.loading import load_dense
from llmrepair.stages.sources.models import hub_snapshot
from llmrepair.stages.sources.rows import CALIBRATION_TEXT, too_few_rows
from llmrepair.stages.sources.texts import load_texts, tell_fewer
from llmrepair.stages.sources.weights import CHECKPOINT_FOLDER

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llmrepair.stages.compress.config import CompressConfig
    from llmrepair.stages.compress.methods.base import Method
    from llmrepair.stages.compress.stage import Compress
    from llmrepair.stages.sources.models import ModelSource

_TOLD_FILE, _TENSORS_FILE = "told.json", "tensors.safetensors"


def run(stage: Compress, context: Context) -> dict[str, Any]:
    config, source = stage.config, stage.model
    dense = _files_of(source)
    device = holding_device(weights_in_memory(source, config), pick_device(context.runtime.device))
    if not stage.method.parts:
        return measure(dense, load_dense(source, config.dtype, device, config.trust_remote_code))

    kept = context.work / "compressed"
    if not kept.exists():  # else a run that failed behind this has left it
        _compress_into(kept, stage, context, device)
    told = json.loads((kept / _TOLD_FILE).read_text(encoding="utf-8"))
    tensors = load_file(kept / _TENSORS_FILE)
    gc.collect()  # the fresh process needs the memory of the model, and a traced one is held in cycles
    torch.cuda.empty_cache()
    how = config.dtype, device, config.trust_remote_code
    reloaded = reload_in_fresh_process(kept / CHECKPOINT_FOLDER, *how, tensors["rows"], tensors["expected"], context.work)
    context.peaks.append(reloaded.memory_bytes)
    (kept / CHECKPOINT_FOLDER).rename(context.folder / CHECKPOINT_FOLDER)
    return reloaded.measures | {
        "calibration_rows": len(tensors["rows"]),
        "compression_ratio": sum(path.stat().st_size for path in dense) / reloaded.measures["size_bytes"],
        "output_error": mean(layer["output_error"] for layer in told["layers"]),
        "reload_difference": reloaded.difference,
        "five_tokens": {"before": told["before"], "after": reloaded.five_tokens},
        "layers": told["layers"],
    }


def _compress_into(kept: Path, stage: Compress, context: Context, device: torch.device) -> None:
    """What takes long: the compressed checkpoint, and what is told of it. It appears when all of it is there."""
    config, source = stage.config, stage.model
    model = load_dense(source, config.dtype, device, config.trust_remote_code)
    tokenizer = load_tokenizer(source.location, source.revision, config.trust_remote_code)
    rows = calibration_rows(stage, tokenizer)
    tell_fewer(context.reporter, config.calibration, len(rows), config.samples, "rows of calibration text")
    draft = kept.with_name("unfinished")
    shutil.rmtree(draft, ignore_errors=True)
    checkpoint = draft / CHECKPOINT_FOLDER
    for part in (tokenizer, model.config, model.generation_config):  # transformers refuses to save some, better now than later
        if part is not None:
            part.save_pretrained(checkpoint)
    before = five_tokens(model, tokenizer, rows)
    with experts_followed(model, rows):
        compressor = compress_layers_of(model, rows, config, stage.method, context)
    save_checkpoint(model, compressor.quantised, config.format, checkpoint)
    save_file({"rows": rows.contiguous(), "expected": some_logits(model, rows)}, draft / _TENSORS_FILE)
    write_json(draft / _TOLD_FILE, {"before": before, "layers": compressor.told})
    draft.rename(kept)


def calibration_rows(stage: Compress, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Rows [N, seq_len] of calibration text."""
    config = stage.config
    assert stage.calibration is not None  # only the dense model has none
    texts = load_texts(config.calibration, stage.calibration)
    rows = pack_rows(texts, tokenizer, config.samples, config.seq_len, config.bos)
    if not len(rows):
        raise WorkError(too_few_rows(config.calibration, 0, 1, config.seq_len, CALIBRATION_TEXT))
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
        ways = {"dense_inputs": config.propagate == "dense", "all_experts": config.expert_calibration == "all"}
        calibrate(model, layers, rows, batch_size, device, compressor.visit, **ways)
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
    return Grid(config.bits, config.group_size, not config.asymmetric, scales, config.signed_scale)


def _files_of(source: ModelSource) -> list[Path]:
    """A model's weight files on this machine."""
    folder = Path(source.location) if source.revision is None else hub_snapshot(source.location, source.revision)
    return weight_files(folder)
