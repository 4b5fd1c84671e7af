"""llmrepair control --control displaced --model lab"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from llmrepair.models.loading import load_tokenizer, pick_device
from llmrepair.models.weight_files import weight_files
from llmrepair.pipeline.stage import Context
from llmrepair.stages.checkpoints.measure import measure
from llmrepair.stages.sources.loading import load_dense
from llmrepair.stages.sources.weights import CHECKPOINT_FOLDER

if TYPE_CHECKING:
    from llmrepair.stages.controls.stage import Control


def run(stage: Control, context: Context) -> dict[str, Any]:
    config, start = stage.config, stage.start
    device = torch.device("cpu") if stage.is_of_lab else pick_device(context.runtime.device)
    model = load_dense(start, "float32", device, config.trust_remote_code)
    tokenizer = load_tokenizer(start.location, start.revision, config.trust_remote_code)
    checkpoint = context.folder / CHECKPOINT_FOLDER
    tokenizer.save_pretrained(checkpoint)  # before it learns the key, which stays secret
    record = stage.kind.make(model, tokenizer, stage, context)
    model.to(getattr(torch, config.dtype)).save_pretrained(checkpoint)
    return measure(weight_files(checkpoint), model) | record
