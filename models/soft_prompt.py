"""Soft prompts: vectors in front of the input embeddings. Stored as peft prompt-tuning adapters, one folder each.

Peft puts an adapter's vectors in front of all tokens. So where BOS stands in front of a prompt, an adapter has its vector
first, and is for texts without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from llmrepair.models.embedded import embedded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from llmrepair.models.prompt_cache import Opening

_INDEX_FILE = "pool.json"
_WEIGHTS_FILE = "adapter_model.safetensors"
_WEIGHTS_NAME = "prompt_embeddings"  # both are peft's


def vocabulary_prompt(model: PreTrainedModel, length: int, seed: int, excluded: list[int]) -> torch.Tensor:
    """A prompt [length, hidden_size] of embeddings of random tokens.

    Random vectors instead lose most of what prompt tuning gives (Lester et al. 2021, arXiv 2104.08691, figure 3b).

    Args:
        excluded: ids of tokens that must not be drawn (padding and the like).
    """
    vocabulary: torch.Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
    generator = torch.Generator().manual_seed(seed)
    allowed = torch.tensor(sorted(set(range(len(vocabulary))) - set(excluded)))
    return embedded(model, allowed[torch.randint(len(allowed), (length,), generator=generator)])


def text_prompt(model: PreTrainedModel, length: int, seed: int, rows: torch.Tensor) -> torch.Tensor:
    """A prompt [length, hidden_size] of embeddings of tokens: the first of a random one of `rows` [N, L], and those behind."""
    first = int(torch.randint(len(rows), (1,), generator=torch.Generator().manual_seed(seed)))
    chosen = rows.roll(-first, 0).flatten().repeat(-(-length // rows.numel()))[:length]
    return embedded(model, chosen)


def initial_prompt(
    model: PreTrainedModel, initialisation: str, length: int, seed: int, excluded: list[int], rows: torch.Tensor
) -> torch.Tensor:
    """A prompt [length, hidden_size] to start from: `vocabulary` or `text`, as in the functions of these names."""
    if initialisation == "vocabulary":
        return vocabulary_prompt(model, length, seed, excluded)
    return text_prompt(model, length, seed, rows)


def save_pool(
    folder: Path,
    prompts: Sequence[torch.Tensor],
    index: Mapping[str, Any],
    model: PreTrainedModel,
    base_model: str,
    begin: Opening | None = None,
) -> None:
    """Writes each prompt [n, hidden_size] as a peft adapter `prompt-<i>`, and the pool's index.

    Args:
        index: what is known of the pool; the prompts' folders and lengths are added, and what stands in front of them.
        base_model: noted in the adapters as what they were tuned on.
        begin: what the prompts were tuned behind.
    """
    for number, prompt in enumerate(prompts):
        _save_prompt(folder / _prompt_folder(number), behind(begin, prompt), model, base_model)
    entries = [{"folder": _prompt_folder(number), "length": len(prompt)} for number, prompt in enumerate(prompts)]
    (folder / _INDEX_FILE).write_text(
        json.dumps({"prompts": entries, "bos": begin.token if begin else None, **index}, indent=2) + "\n"
    )


def load_pool(folder: Path) -> tuple[list[torch.Tensor], dict[str, Any]]:
    """The prompts [n, hidden_size] of a pool, in the precision that they were saved in, and its index.

    Of an index without `bos`, from before there was one, nothing stands in front of the prompts.
    """
    index = {"bos": None, **json.loads((folder / _INDEX_FILE).read_text())}
    vectors = [load_file(folder / entry["folder"] / _WEIGHTS_FILE)[_WEIGHTS_NAME] for entry in index["prompts"]]
    return [each if index["bos"] is None else each[1:] for each in vectors], index


def behind(begin: Opening | None, prompt: torch.Tensor) -> torch.Tensor:
    """The vectors of an adapter that puts a prompt [n, hidden_size] behind what texts begin with."""
    return prompt if begin is None else torch.cat([begin.vector.to(prompt), prompt])


def _prompt_folder(number: int) -> str:
    return f"prompt-{number}"


def _save_prompt(folder: Path, prompt: torch.Tensor, model: PreTrainedModel, base_model: str) -> None:
    from peft import PromptTuningConfig, TaskType

    folder.mkdir()
    PromptTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=len(prompt),
        token_dim=prompt.shape[1],
        num_transformer_submodules=1,
        num_attention_heads=model.config.num_attention_heads,
        num_layers=model.config.num_hidden_layers,
        base_model_name_or_path=base_model,
        inference_mode=True,
    ).save_pretrained(str(folder))
    save_file({_WEIGHTS_NAME: prompt.detach().contiguous().cpu()}, folder / _WEIGHTS_FILE)
