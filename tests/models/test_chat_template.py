"""Chat templates: special tokens are those of lm-eval's own HFLM, and a template's own beginning of text is not doubled."""

from __future__ import annotations

from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from llmrepair.models.harness import RepairedLM
from tests.conftest import VOCABULARY, tiny_model

WORDS = "Where is Oslo Rome Lima user assistant system speak up in the north south . ? :".split()
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] }} : {{ message['content'] }} . {% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)
CHAT = [
    {"role": "system", "content": "speak up"},
    {"role": "user", "content": "Where is Oslo ?"},
    {"role": "assistant", "content": "in the north"},
    {"role": "user", "content": "Where is Lima ?"},
]


@pytest.fixture(params=[TEMPLATE, TEMPLATE.replace("{{ bos_token }}", "")], ids=["with its own", "without"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    """One that puts a beginning of text in front of whatever it reads, as Llama's does."""
    ids = {word: index for index, word in enumerate(["<s>", "</s>", "<pad>", "<unk>", *WORDS])}
    assert len(ids) <= VOCABULARY
    core = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>", model_max_length=64
    )
    made.chat_template = request.param
    return made


def requests(kind: Any, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, each, 0, ("task", index, 1)) for index, each in enumerate(arguments)]


def test_it_scores_and_generates_as_lm_evals_own_model(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_model("llama")
    ours = RepairedLM(model, tokenizer, batch_size=3, max_length=64)
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=64)
    assert ours.tokenizer_name == theirs.tokenizer_name
    assert ours.chat_template(True) == theirs.chat_template(True) == tokenizer.chat_template
    prompts = [ours.apply_chat_template(CHAT[-length:]) for length in (1, 3, 4)]
    assert prompts == [theirs.apply_chat_template(CHAT[-length:]) for length in (1, 3, 4)]

    pairs = [(prompt, f" in the {place} .") for prompt in prompts for place in ("north", "south")]
    for pair in pairs:
        ((context, whole),) = ours._encoded([pair])
        continuation = whole[len(context) :]
        assert (context, continuation) == theirs._encode_pair(*pair)
        assert context.count(tokenizer.bos_token_id) == 1
        assert tokenizer.bos_token_id not in continuation
    scored = ours.loglikelihood(requests("loglikelihood", pairs))
    expected = theirs.loglikelihood(requests("loglikelihood", pairs))
    assert [ll for ll, _ in scored] == pytest.approx([ll for ll, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in scored] == [greedy for _, greedy in expected]

    asked = requests("generate_until", [(prompt, {"until": ["?"], "max_gen_toks": 6}) for prompt in prompts])
    assert ours.generate_until(asked) == theirs.generate_until(asked)
