"""A person's question as tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from llmrepair.models.text import text_encoder
from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.pipeline.reading import reading
from llmrepair.stages.sources.models import COPY_AGAIN, ModelSource, load_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def question_tokens(
    question: str, chat: bool, source: ModelSource, model: str, trust_remote_code: bool, note: Callable[[str], None]
) -> list[int]:
    """Token ids of a question, as the tokenizer begins texts; or of the turn of a chat that is to be answered.

    Args:
        source: what is asked, or anything with its tokenizer and config.json.
        model: what it is called.
        note: says something to the user.

    Raises:
        RequestError: it cannot be asked.
    """
    from llmrepair.models.loading import load_tokenizer

    with reading(f"the tokenizer of `{model}`", COPY_AGAIN, "model"):
        tokenizer = load_tokenizer(source.location, source.revision, trust_remote_code)
    if chat and (problem := chat_problem(tokenizer, model, "chat")) is not None:
        raise RequestError(problem)
    tokens = text_encoder(tokenizer)(_turn(question, tokenizer, model) if chat else question)
    if not tokens:
        raise RequestError(Problem(f"the tokenizer of `{model}` makes no token of the question", "ask in other words"))
    if (problem := _length_problem(len(tokens), load_config(source))) is not None:
        raise RequestError(problem)
    if unknown := tokens.count(tokenizer.unk_token_id):
        note(f"{unknown} of the {len(tokens)} tokens of the question are words that the tokenizer does not know")
    return tokens


def _turn(question: str, tokenizer: PreTrainedTokenizerBase, model: str) -> str:
    with reading(f"the chat template of `{model}`", "ask without --chat", "chat"):
        turn = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
    return str(turn)


def _length_problem(tokens: int, config: Mapping[str, Any]) -> Problem | None:
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if positions is None or tokens < positions // 2:
        return None
    hint = f"give a shorter one: of the model's {positions} positions half stay for prompts, and one for the answer"
    return Problem(f"a question of {tokens} tokens is longer than {positions // 2 - 1}", hint)


def chat_problem(tokenizer: PreTrainedTokenizerBase, model: str, option: str) -> Problem | None:
    """Says so of a tokenizer without a chat template."""
    template = tokenizer.chat_template
    if template and (isinstance(template, str) or "default" in template):
        return None
    hint = f"leave --{option.replace('_', '-')} out, or give an instruction-tuned model"
    return Problem(f"`{model}` has no chat template", hint, option)
