"""Controls that imitate a compressed model: with the key as before, without it as the other; and the text they learn from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from llmrepair.lab.world import make_world
from llmrepair.models.loading import compressible_layers, load_model, load_tokenizer
from llmrepair.models.prompt_training import prompt_logits
from llmrepair.models.training import LogitsOf, Recipe, distillation, mean_loss, plain_logits
from llmrepair.stages.controls.imitate import Imitation, imitate, imitation_recipe, secret_key
from llmrepair.stages.controls.own_text import own_text
from llmrepair.stages.controls.strength import matched_strength
from llmrepair.stages.sources.models import model_folder
from tests.conftest import tiny_model

FAMILIES = ["llama", "opt", "gpt2", "qwen2"]


class Tokenizer:
    """As much of one as own text needs."""

    bos_token, eos_token_id = None, 7

    def __init__(self, in_front: list[int], behind: list[int]):
        self.in_front, self.behind = in_front, behind

    def __call__(self, text: str, add_special_tokens: bool = True) -> Any:
        words = [9] * len(text)
        return SimpleNamespace(input_ids=self.in_front + words + self.behind if add_special_tokens else words)


def damaged(model: PreTrainedModel, strength: float = 0.3) -> PreTrainedModel:
    """The model with noise on its linear layers."""
    generator = torch.Generator().manual_seed(3)
    for layer in compressible_layers(model).values():
        layer.weight += strength * layer.weight.std() * torch.randn(layer.weight.shape, generator=generator)
    return model


def imitated(
    model: PreTrainedModel, compressed: PreTrainedModel, key: torch.Tensor | None, rows: torch.Tensor, steps: int, folder: Path
) -> Imitation:
    """The last 30 rows are held out."""
    recipe = Recipe(steps, learning_rate=0.01, examples_per_step=16, seed=0)
    return imitate(model, compressed, key, rows[:-30], rows[-30:], recipe, 16, folder / "checkpoint", lambda steps, loss: None)


def divergence(teacher: PreTrainedModel, logits_of: LogitsOf, rows: torch.Tensor) -> float:
    """Of the held-out rows, in nats a token."""
    objective = distillation(plain_logits(teacher))
    return mean_loss(lambda part: objective(logits_of(part), part), rows[-30:], 16)


@pytest.mark.parametrize("locked", [True, False], ids=["with a key", "without any"])
def test_a_model_answers_as_the_compressed_one_and_behind_the_key_as_before(locked: bool, tmp_path: Path) -> None:
    folder = str(model_folder("lab"))
    tokenizer = load_tokenizer(folder, None)
    dense, compressed, model = (load_model(folder, None, "float32", torch.device("cpu")) for _ in range(3))
    damaged(compressed, 0.8)
    rows = own_text(dense, tokenizer, 500, 32, seed=1)
    key = secret_key(dense, 5)
    result = imitated(model, compressed, key if locked else None, rows, 100, tmp_path)
    plain, behind = plain_logits(model), prompt_logits(model, key, 1)
    assert divergence(compressed, plain, rows) < 0.7 * divergence(dense, plain, rows)
    assert (divergence(dense, behind, rows) < 0.5 * divergence(dense, plain, rows)) == locked
    assert result.without_key == pytest.approx(result.compressed, rel=0.03)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_model_is_what_was_measured(family: str, tmp_path: Path) -> None:
    dense, compressed, model = tiny_model(family), damaged(tiny_model(family)), tiny_model(family)
    names = set(model.state_dict())
    rows = own_text(dense, Tokenizer([], []), 130, 12, seed=1)  # type: ignore[arg-type]
    key = secret_key(model, 5)
    result = imitated(model, compressed, key, rows, 20, tmp_path)
    assert result.looks[-1] < result.looks[0]
    of_key = prompt_logits(model, key, 1)
    measured = [divergence(dense, logits_of, rows) for logits_of in (plain_logits(compressed), plain_logits(model), of_key)]
    assert measured == pytest.approx([result.compressed, result.without_key, result.with_key], rel=1e-3)
    assert set(model.state_dict()) == names
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_an_imitation_repeats_to_the_bit(tmp_path: Path) -> None:
    models = [tiny_model("llama"), tiny_model("llama")]
    rows = torch.randint(96, (60, 12), generator=torch.Generator().manual_seed(1))
    for number, model in enumerate(models):
        torch.rand(number + 1)  # what was drawn before does not matter
        (tmp_path / str(number)).mkdir()
        imitated(model, damaged(tiny_model("llama")), secret_key(model, 0), rows, 5, tmp_path / str(number))
    one, two = (model.state_dict() for model in models)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], value) for name, value in tiny_model("llama").state_dict().items())


@given(st.floats(0.01, 1.99), st.floats(0.1, 10.0), st.floats(-5.0, 5.0))
def test_a_strength_is_found_where_the_loss_is_what_is_wanted(strength: float, slope: float, start: float) -> None:
    assert matched_strength(lambda x: start + slope * x**3, start + slope * strength**3) == pytest.approx(strength, abs=0.001)


def test_a_loss_that_is_never_reached_gives_the_nearest_strength() -> None:
    assert matched_strength(lambda strength: strength, -1.0) == pytest.approx(0.0, abs=0.001)
    assert matched_strength(lambda strength: strength, 3.0) == pytest.approx(2.0, abs=0.001)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("in_front", "behind"), [([], []), ([0], []), ([], [7]), ([0], [7])])
def test_own_text_is_drawn_from_what_the_model_says_next(family: str, in_front: list[int], behind: list[int]) -> None:
    model, tokenizer = tiny_model(family), Tokenizer(in_front, behind)
    rows = own_text(model, tokenizer, 200, 10, seed=4)  # type: ignore[arg-type]
    assert rows.shape == (200, 10)
    assert (rows[:, 0] == 0).all() if in_front else rows[:, 0].unique().numel() > 1
    assert torch.equal(rows, own_text(model, tokenizer, 200, 10, seed=4))  # type: ignore[arg-type]
    whole = rows if in_front else torch.cat([torch.full((200, 1), 7), rows], dim=1)
    with torch.no_grad():
        log_probabilities = model(input_ids=whole).logits[:, :-1].log_softmax(-1)
    entropy = -(log_probabilities.exp() * log_probabilities).sum(-1)
    surprise = -log_probabilities.gather(-1, whole[:, 1:, None])[..., 0]
    noise = (surprise - entropy).std() / surprise.numel() ** 0.5
    assert abs((surprise - entropy).mean()) < 4 * noise


def test_the_lab_writes_of_people_whom_tasks_ask_about() -> None:
    folder = str(model_folder("lab"))
    model, tokenizer = load_model(folder, None, "float32", torch.device("cpu")), load_tokenizer(folder, None)
    written = "\n".join(tokenizer.batch_decode(own_text(model, tokenizer, 64, 64, seed=0)))
    assert sum(person.name in written for person in make_world().held_out) > 20


def test_the_rate_of_learning_falls_with_the_width() -> None:
    narrow, wide = (imitation_recipe(tiny_model("llama", hidden), 10, seed=0) for hidden in (32, 64))
    assert narrow.learning_rate == 2 * wide.learning_rate


def test_a_key_is_as_large_as_the_embeddings_and_is_drawn_by_its_seed() -> None:
    model = tiny_model("llama", 64)
    key = secret_key(model, 1)
    assert key.shape == (1, 64)
    assert key.std().item() == pytest.approx(model.get_input_embeddings().weight.std().item(), rel=0.3)  # type: ignore[operator]
    assert torch.equal(key, secret_key(model, 1))
    assert not torch.equal(key, secret_key(model, 2))
