"""How an export is loaded: Python for its model card, that runs as it stands once `folder` is right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llmrepair.stages.export.parts import ONE_ADAPTER

Facts = Mapping[str, Any]

_PACKAGES = {"compressed-tensors": "compressed-tensors", "gptq": "optimum gptqmodel"}
_SERVED_BITS = (4, 8)
_SERVED_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_TEXT = '"The capital of France is"'


def loading_sections(facts: Facts) -> Iterable[str]:
    """For transformers with peft where there is an adapter, and for vLLM where it can."""
    yield "### transformers" if adapter(facts) is None else "### transformers and peft"
    quantization = facts["compression"]["quantization"] or {}
    if quantization.get("method") in _PACKAGES:
        yield f"Packed weights need `pip install {_PACKAGES[quantization['method']]}`."
    yield _code(_transformers(facts))
    if adapter(facts) is not None:
        others = "; another prompt of the pool is loaded by its own folder" if len(facts["repair"]["prompts"]) > 1 else ""
        yield f"Without the line with `PeftModel` it is the model without its repair{others}."
        yield from _position_warning(facts["repair"])
    yield "### vLLM"
    if quantization.get("method") == "compressed-tensors" and quantization["bits"] not in _SERVED_BITS:
        yield f"vLLM has no kernels for packed weights of {quantization['bits']} bits (it has for 4 and 8)."
    else:
        yield _code(_vllm(facts))


def _position_warning(repair: Facts) -> Iterable[str]:
    """Where a prompt is shorter than the pool's longest: peft does not let the text start where it started in tuning."""
    position = max(repair["settings"].get("lengths", [0]))
    if short := [f"`prompts/{each['number']}`" for each in repair["prompts"] if each["length"] != position]:
        yield (
            f"The prompts were tuned with the text starting at position {position}; in peft it starts right behind the prompt. "
            "That is the same for models with rotary positions (Llama, Qwen). With learned ones (OPT, GPT-2) "
            f"{', '.join(short)} {'give' if len(short) > 1 else 'gives'} other results than were measured here; prompts of one "
            "length (`--lengths`) do not."
        )


def adapter(facts: Facts) -> str | None:
    """The folder of the adapter that is loaded if nothing else is said: the only one, or that of the best prompt."""
    if facts["merged"] or facts["repair"] is None:
        return None
    if facts["recovery"] in ONE_ADAPTER:
        return str(facts["recovery"])
    prompts = facts["repair"]["prompts"]
    return f"prompts/{next((prompt for prompt in prompts if prompt['best']), prompts[0])['number']}"


def _transformers(facts: Facts) -> Iterable[str]:
    folder, settings = adapter(facts), facts["compression"]["settings"]
    options, classes = f", dtype=torch.{settings['dtype']}", "AutoModelForCausalLM, AutoTokenizer"
    trust = ", trust_remote_code=True" if settings["trust_remote_code"] else ""
    is_unpacked = folder is not None and (facts["compression"]["quantization"] or {}).get("method") == "compressed-tensors"
    if is_unpacked:
        classes += ", CompressedTensorsConfig"
        options += ", quantization_config=unpacked"
    yield "import torch"
    if folder is not None:
        yield "from peft import PeftModel"
    yield f"from transformers import {classes}"
    yield ""
    yield 'folder = "."  # this folder, or the name of its repository on the Hub'
    yield f"tokenizer = AutoTokenizer.from_pretrained(folder{trust})"
    if is_unpacked:
        yield "unpacked = CompressedTensorsConfig(dequantize=True)  # peft needs the weights themselves"
    yield f"model = AutoModelForCausalLM.from_pretrained(folder{options}{trust})"
    if folder is not None:
        yield f'model = PeftModel.from_pretrained(model, folder, subfolder="{folder}")'
    yield ""
    yield f'inputs = tokenizer({_TEXT}, return_tensors="pt", return_token_type_ids=False)'
    yield "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))"


def _vllm(facts: Facts) -> Iterable[str]:
    has_lora = adapter(facts) == "lora"
    options = ", trust_remote_code=True" if facts["compression"]["settings"]["trust_remote_code"] else ""
    yield "from vllm import LLM, SamplingParams"
    if has_lora:
        rank = facts["repair"]["settings"]["rank"]
        options += f", enable_lora=True, max_lora_rank={next((each for each in _SERVED_RANKS if each >= rank), rank)}"
        yield "from vllm.lora.request import LoRARequest"
    yield ""
    yield 'folder = "."  # this folder'
    yield f"model = LLM(folder{options})"
    yield "sampling = SamplingParams(temperature=0, max_tokens=40)"
    request = ', lora_request=LoRARequest("repair", 1, f"{folder}/lora")' if has_lora else ""
    yield f"print(model.generate({_TEXT}, sampling{request})[0].outputs[0].text)"


def _code(lines: Iterable[str]) -> str:
    return "\n".join(["```python", *lines, "```"])
