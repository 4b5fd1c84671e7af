"""Which families compute trees, and that what they compute is what each text alone gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

from llmrepair.models.prompt_cache import build_prompt_cache
from llmrepair.models.tree_attention import attention_window, logits_of_trees, takes_trees
from llmrepair.models.trees import Text, Tree, grow_trees, side_by_side
from tests.conftest import FAMILIES, tiny_model
from tests.tiny_families import tiny_model as tiny_model_of

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
LLAMA_LIKE = SIZES | {"intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 128}
TEXTS = [
    Text(0, (5, 6, 7, 8, 9, 10, 11), 4),
    Text(0, (5, 6, 7, 8, 12, 13), 4),
    Text(0, (5, 6, 7, 8, 9, 14, 15, 16), 4),
    Text(0, (20, 21, 22, 23), 1),
]


def random_model(family: str, **sizes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(getattr(transformers, f"{family}Config")(**sizes))
    return model.eval().requires_grad_(False)


def last_logits(model: PreTrainedModel, tree: Tree, prompts: list[torch.Tensor]) -> dict[Text, torch.Tensor]:
    """Logits before the last token of each text."""
    cache = build_prompt_cache(model, prompts) if prompts else None
    places = torch.tensor([path[-1] for path in tree.paths.values()])
    logits = logits_of_trees(model, cache, torch.zeros(1, dtype=torch.long), [tree], places)
    return dict(zip(tree.paths, logits, strict=True))


@pytest.mark.parametrize("prompted", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_tree_gives_what_each_of_its_texts_gives(family: str, prompted: bool) -> None:
    model = tiny_model(family)
    prompts = [torch.randn(5, 32, generator=torch.Generator().manual_seed(3))] if prompted else []
    together = last_logits(model, side_by_side(grow_trees(TEXTS)), prompts)
    for text in TEXTS:
        (alone,) = last_logits(model, grow_trees([text])[0], prompts).values()
        assert torch.allclose(together[text], alone, atol=1e-4)
        if not prompted:
            assert torch.allclose(alone, model(torch.tensor([text.tokens[:-1]])).logits[0, -1], atol=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("Llama", LLAMA_LIKE),
        ("Mistral", LLAMA_LIKE),
        ("Qwen3", LLAMA_LIKE | {"head_dim": 8}),
        ("Gemma", LLAMA_LIKE | {"head_dim": 8}),
        ("Gemma2", LLAMA_LIKE | {"head_dim": 8}),
        ("Gemma3Text", LLAMA_LIKE | {"head_dim": 8}),
        ("GPTNeoX", LLAMA_LIKE),
        ("Phi", LLAMA_LIKE),
        ("Phi3", LLAMA_LIKE),
    ],
)
def test_families_that_take_trees(family: str, sizes: dict[str, Any], attention: str) -> None:
    model = random_model(family, **sizes)
    model.set_attn_implementation(attention)
    assert takes_trees(model)
    assert takes_trees(model.to(torch.bfloat16))


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("Bloom", {"vocab_size": 96, "hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}),
        ("Mpt", {"vocab_size": 96, "d_model": 32, "n_layers": 2, "n_heads": 4, "initializer_range": 0.3}),
        ("Falcon", SIZES | {"alibi": True}),
        ("Mistral", LLAMA_LIKE | {"sliding_window": 4}),
        ("Lfm2", LLAMA_LIKE | {"layer_types": ["conv", "full_attention"]}),
    ],
)
def test_families_that_do_not(family: str, sizes: dict[str, Any]) -> None:
    assert not takes_trees(random_model(family, **sizes))


def test_the_shortest_window_counts() -> None:
    assert attention_window(random_model("Mistral", **LLAMA_LIKE, sliding_window=7)) == 7
    assert attention_window(random_model("Llama", **LLAMA_LIKE)) is None


@pytest.mark.parametrize("family", ["openai-gpt", "xlm"])
def test_a_family_that_refuses_the_mask_takes_no_trees(family: str) -> None:
    assert not takes_trees(tiny_model_of(family, 96))
