from __future__ import annotations

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedModel

from llmrepair.models import head
from llmrepair.models.head import loss_in_parts
from llmrepair.models.prompt_training import prompt_logits
from llmrepair.models.soft_prompt import vocabulary_prompt
from llmrepair.models.training import LossSum, distillation_loss, next_token_loss, plain_logits, predicting
from tests.tiny_families import tiny_model as tiny_model_of

ROWS = torch.arange(3, 63).reshape(5, 12)


def value_and_gradient(loss_sum: LossSum, prompt: torch.nn.Parameter) -> tuple[float, torch.Tensor]:
    prompt.grad = None
    loss = loss_sum(ROWS) / 7
    loss.backward()
    assert prompt.grad is not None
    return loss.item(), prompt.grad.clone()


@pytest.mark.parametrize(
    "objective", [next_token_loss, lambda logits, rows: distillation_loss(logits, logits.detach().roll(1, 2))]
)
@pytest.mark.parametrize("rows_at_once", [1, 2, 5])
def test_losses_in_parts_have_the_value_and_gradient_of_the_whole(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, objective: head.Objective, rows_at_once: int
) -> None:
    monkeypatch.setitem(head._BYTES_AT_ONCE, "cpu", rows_at_once * 11 * model.config.vocab_size * 4)
    prompt = torch.nn.Parameter(vocabulary_prompt(model, 4, 0, []))
    logits_of = prompt_logits(model, prompt, 4)
    in_parts = loss_in_parts(model, logits_of, objective)
    loss, gradient = value_and_gradient(in_parts, prompt)
    whole, expected = value_and_gradient(lambda rows: objective(logits_of(rows), rows), prompt)
    assert loss == pytest.approx(whole, rel=1e-5)
    assert (gradient - expected).abs().max() / expected.abs().max() < 1e-4
    with torch.no_grad():
        assert in_parts(ROWS).item() / 7 == pytest.approx(whole, rel=1e-5)
    assert model(ROWS).logits.shape == (5, 12, 96)


@pytest.mark.parametrize("cap", [None, 1.0])
def test_logits_that_are_capped_are_computed_as_they_are(cap: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8}
    config = Gemma2Config(vocab_size=96, **sizes, num_key_value_heads=2, final_logit_softcapping=cap, initializer_range=0.3)
    model = Gemma2ForCausalLM(config).eval().requires_grad_(False)
    left_out: list[bool] = []
    real = head._left_out
    in_parts = loss_in_parts(model, plain_logits(model), next_token_loss)
    monkeypatch.setattr(head, "_left_out", lambda module: left_out.append(True) or real(module))
    whole = next_token_loss(model(ROWS, logits_to_keep=predicting(ROWS)).logits, ROWS)
    assert in_parts(ROWS).item() == pytest.approx(whole.item(), rel=1e-5)
    assert bool(left_out) == (cap is None)


def test_a_model_has_its_head_back_afterwards(model: PreTrainedModel) -> None:
    module = model.get_output_embeddings()
    assert module is not None
    assert head._is_all_behind_hidden_states(model, module)  # so the comparison above is not of a thing with itself
    before = model(ROWS).logits
    loss_in_parts(model, plain_logits(model), next_token_loss)(ROWS)
    assert torch.equal(model(ROWS).logits, before)
    assert "forward" not in vars(module)


def test_a_family_that_gives_all_logits_is_cut_to_those_of_next_tokens() -> None:
    model = tiny_model_of("whisper", 96)
    logits = plain_logits(model)(ROWS[:, :7])
    assert torch.equal(logits, model(input_ids=ROWS[:, :7], use_cache=False).logits[:, :6])
