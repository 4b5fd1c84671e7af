from __future__ import annotations

import pytest
import torch

from llmrepair.models.sampling import draw, drawing_on_cpu
from tests.conftest import VOCABULARY, tiny_model


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("samples", [1, 4])
def test_what_torch_draws_on_a_cpu(samples: int, dtype: torch.dtype) -> None:
    probabilities = torch.randn(64, 500, generator=generator()).softmax(-1).to(dtype)
    probabilities[:, ::2] = 0  # as behind `top_k`
    ours, theirs = generator(), generator()
    for _ in range(3):  # they go on from the same place
        expected = torch.multinomial(probabilities, samples, generator=theirs)
        assert torch.equal(draw(probabilities, samples, generator=ours), expected)


@pytest.mark.parametrize("options", [{}, {"top_p": 0.9, "temperature": 0.7}, {"num_beams": 3}])
def test_generation_draws_so_and_says_the_same(options: dict[str, float]) -> None:
    model, ids = tiny_model("llama"), torch.arange(12).reshape(3, 4) % VOCABULARY
    options = {"do_sample": True, "max_new_tokens": 9, "pad_token_id": 0, **options}
    torch.manual_seed(5)
    expected = model.generate(ids, **options)
    torch.manual_seed(5)
    with drawing_on_cpu():
        assert torch.equal(model.generate(ids, **options), expected)
    assert torch.multinomial is not draw
