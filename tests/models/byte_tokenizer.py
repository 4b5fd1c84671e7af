"""A byte-level tokenizer whose words merge across the end of a question, begun and ended as is wanted."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, set_seed

BOS, EOS = 0, 1
_TEXT = ["Complete the word: hello world", "working on it today", "中国", "首都", "中央", "北京"]


def byte_tokenizer(adds: str = "$A") -> PreTrainedTokenizerFast:
    """
    Args:
        adds: `$A` is the text; around it `<s>` and `</s>` where the tokenizer puts them.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(_TEXT * 9, trainer)
    core.post_processor = processors.TemplateProcessing(single=adds, special_tokens=[("<s>", BOS), ("</s>", EOS)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def byte_model() -> PreTrainedModel:
    """Two layers, width 64."""
    set_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=400, **sizes, max_position_embeddings=256, initializer_range=0.2)
    return LlamaForCausalLM(config).eval().requires_grad_(False)
