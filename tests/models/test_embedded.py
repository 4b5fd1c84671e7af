"""An untuned prompt is the words that it starts from, in families that scale embeddings wherever they do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    PreTrainedModel,
    set_seed,
)

from llmrepair.models.embedded import embedded, embedding_size
from llmrepair.models.prompt_cache import forward_with_prompt
from llmrepair.models.prompt_training import prompt_logits
from llmrepair.models.ptune import load_ptune, new_ptune, prefix_of_prompt, ptune_logits
from llmrepair.models.soft_prompt import text_prompt, vocabulary_prompt
from llmrepair.models.training import next_token_loss, plain_logits
from llmrepair.stages.controls.imitate import secret_key

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
SCALES = {"gemma": 8, "gemma2": 8, "gemma3": 8, "granite": 1, "cohere": 1, "minicpm": 12, "llama": 1}
"""What a model takes for a word, over its row of the matrix."""


class ScaledForTokens(LlamaModel):
    """As MiniCPM's own code and Falcon H1: what is given as vectors is not scaled."""

    def forward(self, input_ids: Any = None, inputs_embeds: Any = None, **options: Any) -> Any:
        if inputs_embeds is None:
            inputs_embeds = 12 * self.embed_tokens(input_ids)
        return super().forward(inputs_embeds=inputs_embeds, **options)


def scaled(family: str) -> PreTrainedModel:
    set_seed(0)
    without_head = {name: value for name, value in SIZES.items() if name != "head_dim"}
    if family == "gemma":
        model: PreTrainedModel = GemmaForCausalLM(GemmaConfig(**SIZES))
    elif family == "gemma2":
        model = Gemma2ForCausalLM(Gemma2Config(**SIZES, query_pre_attn_scalar=16))
    elif family == "gemma3":
        model = Gemma3ForCausalLM(Gemma3TextConfig(**SIZES, query_pre_attn_scalar=16))
    elif family == "granite":
        model = GraniteForCausalLM(GraniteConfig(**without_head, embedding_multiplier=12.0, logits_scaling=8.0))
    elif family == "cohere":
        model = CohereForCausalLM(CohereConfig(**without_head, logit_scale=0.25))
    else:
        model = LlamaForCausalLM(LlamaConfig(**SIZES))
        if family == "minicpm":
            model.model.__class__ = ScaledForTokens
    return model.eval().requires_grad_(False)


def loss_behind_words(model: PreTrainedModel, words: torch.Tensor, rows: torch.Tensor) -> float:
    """Of rows with real words in front, by transformers alone."""
    logits = model(input_ids=torch.cat([words.expand(len(rows), -1), rows], dim=1)).logits
    behind = logits[:, len(words) : -1].flatten(0, 1)
    return float(torch.nn.functional.cross_entropy(behind, rows[:, 1:].flatten()))


@pytest.mark.parametrize("family", SCALES)
def test_an_untuned_prompt_is_its_words(family: str) -> None:
    model, rows = scaled(family), torch.arange(3, 63).reshape(5, 12)
    words = rows[3, :7]  # the row that this seed begins with
    prompt = text_prompt(model, 7, 2, rows)
    torch.testing.assert_close(prompt, SCALES[family] * model.get_input_embeddings().weight[words], rtol=1e-6, atol=0)
    expected = loss_behind_words(model, words, rows)
    loss = next_token_loss(prompt_logits(model, prompt, 7)(rows), rows) / rows[:, 1:].numel()
    assert float(loss) == pytest.approx(expected, abs=1e-5)

    adapted = new_ptune(model, "prefix", 7)
    (trained,) = (parameter for parameter in adapted.parameters() if parameter.requires_grad)
    trained.data.copy_(prefix_of_prompt(model, prompt))
    loss = next_token_loss(ptune_logits(adapted)(rows), rows) / rows[:, 1:].numel()
    assert float(loss) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("family", SCALES)
def test_words_of_the_vocabulary_and_keys_are_as_large(family: str) -> None:
    model = scaled(family)
    weight = SCALES[family] * model.get_input_embeddings().weight
    prompt = vocabulary_prompt(model, 20, 3, [0, 1, 2])
    assert (prompt[:, None] - weight).abs().amax(-1).amin(1).max() < 1e-4
    assert float(embedding_size(model)) == pytest.approx(float(weight.square().mean().sqrt()), rel=1e-5)
    assert secret_key(model, 0).square().mean().sqrt() == pytest.approx(float(weight.square().mean().sqrt()), rel=0.5)


def test_what_is_no_scale_is_refused() -> None:
    model = scaled("llama")

    def shifted(module: torch.nn.Module, arguments: Any, options: dict[str, Any]) -> Any:
        if options.get("inputs_embeds") is not None:
            options = options | {"inputs_embeds": options["inputs_embeds"].roll(1, -1)}
        return arguments, options

    model.model.register_forward_pre_hook(shifted, with_kwargs=True)
    with pytest.raises(ValueError, match="something else of tokens"):
        embedded(model, torch.tensor([3]))


@pytest.mark.parametrize("family", ["gemma3", "granite", "cohere", "llama"])
def test_p_tuning_is_trained_as_it_is_used(family: str, tmp_path: Any) -> None:
    model, rows = scaled(family), torch.arange(3, 63).reshape(5, 12)
    adapted = new_ptune(model, "p-tuning", 4)
    trained = ptune_logits(adapted)(rows)
    adapted.save_pretrained(tmp_path)
    cache, _ = load_ptune(model, tmp_path)
    used = forward_with_prompt(model, cache, torch.zeros(5, dtype=torch.long), rows, torch.ones_like(rows))[:, :-1]
    torch.testing.assert_close(trained, used, rtol=1e-4, atol=1e-4)
    assert plain_logits(model)(rows).shape == used.shape
