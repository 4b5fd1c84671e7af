"""A toy family of models, with code of its own: a Llama whose outputs are capped.

python family.py my-model TOKENIZER && llmrepair compress --model ./my-model --trust-remote-code --calibration text.txt
"""

import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM


class CappedConfig(LlamaConfig):
    model_type = "capped"


class CappedHead(torch.nn.Linear):
    def forward(self, states):
        return 30 * torch.tanh(super().forward(states) / 30)


class CappedForCausalLM(LlamaForCausalLM):
    config_class = CappedConfig

    def __init__(self, config):
        super().__init__(config)
        self.lm_head = CappedHead(config.hidden_size, config.vocab_size, bias=False)


def main(folder: Path, tokenizer: str) -> None:
    words = AutoTokenizer.from_pretrained(tokenizer)
    tiny = CappedConfig(vocab_size=len(words), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    tiny.auto_map = {"AutoConfig": "family.CappedConfig", "AutoModelForCausalLM": "family.CappedForCausalLM"}
    CappedForCausalLM(tiny).save_pretrained(folder)
    words.save_pretrained(folder)
    (folder / "family.py").write_text(Path(__file__).read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
