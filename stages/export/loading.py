"""How an export is loaded: Python for its model card, that runs as it stands once `folder` is right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llmrepair.stages.repairs import repair_of_form

Facts = Mapping[str, Any]

_PACKAGES = {"compressed-tensors": "compressed-tensors", "gptq": "optimum gptqmodel"}
_SERVED_BITS = (4, 8)
_TEXT = '"The capital of France is"'


def _spoken(options: str = "") -> Iterable[str]:
    yield f'inputs = tokenizer({_TEXT}, return_tensors="pt", return_token_type_ids=False{options})'
    yield "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))"


def loading_sections(facts: Facts) -> Iterable[str]:
    """For transformers with peft where there is an adapter, and for vLLM where it can; a GGUF file for who reads those."""
    if "gguf" in facts:
        yield from _gguf_sections(facts["gguf"]["file"])
        return
    yield "### transformers" if adapter(facts) is None else "### transformers and peft"
    quantization = facts["compression"]["quantization"] or {}
    if quantization.get("method") in _PACKAGES:
        yield f"Packed weights need `pip install {_PACKAGES[quantization['method']]}`."
    yield _code(_transformers(facts))
    if adapter(facts) is not None:
        others = "; another prompt of the pool is loaded by its own folder" if len(facts["repair"]["prompts"]) > 1 else ""
        yield f"Without the line with `PeftModel` it is the model without its repair{others}."
        yield from repair_of_form(facts["recovery"]).files.loading_notes(facts)
    yield "### vLLM"
    if quantization.get("method") == "compressed-tensors" and quantization["bits"] not in _SERVED_BITS:
        yield f"vLLM has no kernels for packed weights of {quantization['bits']} bits (it has for 4 and 8)."
    else:
        yield _code(_vllm(facts))


def _gguf_sections(file: str) -> Iterable[str]:
    yield "### llama.cpp"
    yield _code([f"llama-cli -m {file} -p {_TEXT} -n 40 --temp 0"], "sh")
    yield "### llmrepair"
    yield _code([f"llmrepair eval --model {file} --method none"], "sh")
    yield "### transformers"
    yield "Of some SentencePiece vocabularies in such files it makes tokenizers that split words into characters: look first."
    loading = f'from_pretrained(folder, gguf_file="{file}")'
    yield _code(
        [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'folder = "."  # this folder, or the name of its repository on the Hub',
            f"tokenizer = AutoTokenizer.{loading}",
            f"model = AutoModelForCausalLM.{loading}",
            "",
            *_spoken(),
        ]
    )


def adapter(facts: Facts) -> str | None:
    """The folder of the adapter that is loaded if nothing else is said: the only one, or that of the best prompt."""
    if facts["merged"] or facts["repair"] is None:
        return None
    return repair_of_form(facts["recovery"]).files.default_adapter(facts)


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
    is_begun = folder is not None and facts["repair"]["bos"] is not None  # by the adapter
    yield from _spoken(", add_special_tokens=False" if is_begun else "")


def _vllm(facts: Facts) -> Iterable[str]:
    served = repair_of_form(facts["recovery"]).files.served(facts) if adapter(facts) is not None else None
    options = ", trust_remote_code=True" if facts["compression"]["settings"]["trust_remote_code"] else ""
    yield "from vllm import LLM, SamplingParams"
    if served is not None:
        options += served.options
        yield served.imports
    yield ""
    yield 'folder = "."  # this folder'
    yield f"model = LLM(folder{options})"
    yield "sampling = SamplingParams(temperature=0, max_tokens=40)"
    request = served.request if served is not None else ""
    yield f"print(model.generate({_TEXT}, sampling{request})[0].outputs[0].text)"


def _code(lines: Iterable[str], language: str = "python") -> str:
    return "\n".join([f"```{language}", *lines, "```"])
