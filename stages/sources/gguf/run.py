"""llmrepair compress --model FILE.gguf, once"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from gguf import GGMLQuantizationType
from transformers import AutoModelForCausalLM

from llmrepair.models.checkpoint import first_not_finite, misfit
from llmrepair.models.loading import meta_model
from llmrepair.models.weight_files import weight_files
from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.pipeline.stage import Context
from llmrepair.stages.sources.gguf.check import FOLDER
from llmrepair.stages.sources.gguf.header import read_header
from llmrepair.stages.sources.gguf.vocabulary import tokenizer_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from llmrepair.stages.sources.gguf.stage import Import


def run(stage: Import, context: Context) -> dict[str, Any]:
    header = read_header(stage.path)
    checkpoint = context.folder / "checkpoint"
    dequantised(stage.path, context.work).save_pretrained(checkpoint)
    _refuse_misfits(stage.path, checkpoint)
    tokenizer_of(header.fields).save_pretrained(checkpoint)
    kinds = Counter(GGMLQuantizationType(kind).name for kind in header.types.values())
    return {
        "architecture": header.architecture,
        "weights": header.weights,
        "size_bytes": sum(path.stat().st_size for path in weight_files(checkpoint)),
        "tensors": dict(kinds.most_common()),
    }


def _refuse_misfits(path: Path, checkpoint: Path) -> None:
    """What was read may have any shape, and numbers that are none: transformers does not look."""
    files = weight_files(checkpoint)
    wrong = str(misfit(meta_model(str(checkpoint), None, trust_remote_code=False), files))
    if not wrong and (name := next(filter(None, map(first_not_finite, files)), None)) is not None:
        wrong = f"`{name}` holds numbers that are not finite"
    if wrong:
        raise RequestError(Problem(f"`{path}` cannot be loaded: {wrong}", FOLDER, "model"))


def dequantised(path: Path, work: Path) -> PreTrainedModel:
    """The model of a file, in float32: no other precision holds all values that a scale times a code gives.

    Raises:
        RequestError: some of its weights are not in the file; transformers would make them up.
    """
    alone = work / "model.gguf"  # beside the file itself transformers would find other models' configs and adapters
    alone.unlink(missing_ok=True)
    alone.symlink_to(path.absolute())
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        work, gguf_file=alone.name, dtype=torch.float32, output_loading_info=True
    )
    model, told = loaded
    if missing := sorted(told["missing_keys"]):
        message = f"`{path}` lacks weights of its family, {len(missing)} tensors such as `{missing[0]}`"
        raise RequestError(Problem(message, FOLDER, "model"))
    model.hf_quantizer, model.is_quantized = None, False
    del model.config.quantization_config
    return model
