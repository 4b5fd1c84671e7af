"""The sections of `gpu.py`: each takes a `Bench`, measures one thing, and tells numbers as they come."""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedTokenizerFast, Qwen3MoeConfig

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedModel

MAX_LENGTH = 2048
SHAPES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
    "1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 16},
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
}
A_QUARTER_OF_QWEN3_MOE = {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
}
A_FEW_EXPERTS = SHAPES["tiny"] | {"moe_intermediate_size": 64, "num_experts": 4, "num_experts_per_tok": 2}
A_FEW_EXPERTS |= {"num_key_value_heads": 2, "head_dim": 32}
QUESTIONS = 2376
"""Those of arc_easy."""
CHOICES = 4
WARM_UP = 16 * CHOICES
SHARE_ASKED_OF_LM_EVAL = 8
"""lm-eval's model is asked each eighth question: it computes each by itself, so all take eight times as long."""


SAVED = "saved"
"""Where `compression` leaves its checkpoint once it is whole."""


class LeftOut(Exception):
    """Why a section has nothing to measure."""


class Bench(NamedTuple):
    """What a section is given; `folder` is the same for all."""

    device: str
    size: str
    folder: Path
    tell: Callable[[str, float | str], None]

    @property
    def dtype(self) -> str:
        return "bfloat16" if self.device == "cuda" else "float32"

    @property
    def vocabulary(self) -> int:
        return self.of(32_000, 512)

    @property
    def prompt_tokens(self) -> int:
        return self.of(100, 8)

    def of(self, real: int, tiny: int) -> int:
        """A number of the measurement, and what it is in the dry run."""
        return tiny if self.size == "tiny" else real


def machine(device: str) -> dict[str, Any]:
    about: dict[str, Any] = {"cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        about |= {"device": properties.name, "device GB": properties.total_memory / 1e9, "CUDA": torch.version.cuda}
    return about


def wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def clean_up() -> None:
    gc.collect()  # adapted and traced models are held in cycles
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what the work returned."""
    wait()
    start = time.perf_counter()
    result = work()
    wait()
    return time.perf_counter() - start, result


def median_seconds(work: Callable[[], Any], repeats: int = 7) -> float:
    """After one that is not counted."""
    return statistics.median([timed(work)[0] for _ in range(repeats + 1)][1:])


def side_by_side(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round; a round before the first is not counted."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        for name, side in sides.items():
            took = side()
            if number:
                seconds[name].append(took)
    return seconds


def llama(bench: Bench, size: str) -> LlamaConfig:
    return LlamaConfig(vocab_size=bench.vocabulary, max_position_embeddings=MAX_LENGTH, **SHAPES[size])


def random_model(bench: Bench, config: PreTrainedConfig) -> Any:
    torch.manual_seed(0)
    torch.backends.cuda.enable_cudnn_sdp(False)  # as `load_model` does
    torch.set_default_dtype(getattr(torch, bench.dtype))
    try:
        with torch.device(bench.device):
            return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(torch.float32)


def weights_used(model: PreTrainedModel) -> float:
    """Weights of the blocks that a token goes through, two FLOPs each. Attention and head are not counted."""
    config = model.config
    used = config.num_experts_per_tok / config.num_experts if hasattr(config, "num_experts") else 1.0
    return sum(p.numel() * (used if p.ndim == 3 else 1) for p in model.model.layers.parameters())  # experts are in one tensor


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = ["<s>", "Question", "Answer", ":", *(f"w{number}" for number in range(4, vocabulary))]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<s>"))
    tokenizer.pre_tokenizer = Whitespace()
    special = dict.fromkeys(("unk_token", "bos_token", "eos_token", "pad_token"), "<s>")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def ceilings(bench: Bench) -> None:
    """What the device itself can do."""
    size, gigabyte = bench.of(8192, 256), bench.of(2**30, 2**20)
    for name, dtype in (("bf16", torch.bfloat16), ("float32", torch.float32)):
        a, b = (torch.randn(size, size, device=bench.device, dtype=dtype) for _ in range(2))
        bench.tell(f"{name} product, TFLOP/s", 2 * size**3 / median_seconds(lambda a=a, b=b: a @ b) / 1e12)
    here, there = (torch.zeros(4 * gigabyte, dtype=torch.uint8, device=bench.device) for _ in range(2))
    bench.tell("copy, GB/s read and written", 2 * here.nbytes / median_seconds(lambda: there.copy_(here)) / 1e9)
    host = torch.ones(gigabyte, dtype=torch.uint8)
    bench.tell("to the device, GB/s", host.nbytes / median_seconds(lambda: here[:gigabyte].copy_(host), 3) / 1e9)
    bench.tell("from the device, GB/s", host.nbytes / median_seconds(lambda: host.copy_(here[:gigabyte]), 3) / 1e9)


def equality(bench: Bench) -> None:
    """Whether scores, choices of prompts and codes of the embedded model are those of a CPU in float32."""
    questions = bench.of(100, 20)
    expected = lab_scores("cpu", "float32", questions)
    for dtype in ("float32", "bfloat16"):
        found = lab_scores(bench.device, dtype, questions)
        apart = [abs(a - b) for a, b in zip(expected[0], found[0], strict=True)]
        bench.tell(f"{dtype}, nats apart", max(apart))
        bench.tell(f"{dtype}, other prompts chosen, %", different(expected[1], found[1]))
    codes = [lab_codes(bench, device) for device in ("cpu", bench.device)]
    bench.tell("GPTQ, other codes, %", different(*codes))


def different(some: Sequence[int], others: Sequence[int]) -> float:
    return 100 * sum(a != b for a, b in zip(some, others, strict=True)) / len(some)


def lab_scores(device: str, dtype: str, questions: int) -> tuple[list[float], list[int]]:
    """Log-likelihoods of answers, without a prompt and behind one that is chosen among four; and these choices."""
    from llmrepair.lab.tasks import DATA
    from llmrepair.models.harness import RepairedLM
    from llmrepair.models.loading import load_model, load_tokenizer
    from llmrepair.models.prompt_cache import build_prompt_cache
    from llmrepair.models.routing import Router
    from llmrepair.models.selection import RoutedSelector
    from llmrepair.models.soft_prompt import vocabulary_prompt
    from llmrepair.stages.sources.lab import lab_folder

    folder = str(lab_folder("lab"))
    model, tokenizer = load_model(folder, None, dtype, torch.device(device)), load_tokenizer(folder, None)
    lines = (DATA / "lab_mc.jsonl").read_text(encoding="utf-8").splitlines()[:questions]
    asked = [(document["prompt"], f" {choice}") for document in map(json.loads, lines) for choice in document["choices"]]
    cache = build_prompt_cache(model, [vocabulary_prompt(model, 16, seed, []).to(model.dtype) for seed in range(4)])
    plain = RepairedLM(model, tokenizer, 16, 64)
    routed = RepairedLM(model, tokenizer, 16, 64, cache, RoutedSelector(Router(model, cache), 16))
    scores = [score for each in (plain, routed) for score, _ in each.loglikelihood(requests(asked), disable_tqdm=True)]
    return scores, [choice for document in sorted(routed.selections) for choice in routed.selections[document]]


def lab_codes(bench: Bench, device: str) -> list[int]:
    from llmrepair.models.loading import load_model, load_tokenizer
    from llmrepair.models.text import pack_rows
    from llmrepair.stages.sources.lab import lab_folder, lab_texts

    folder = str(lab_folder("lab"))
    model = load_model(folder, None, "float32", torch.device("cpu"))
    rows = pack_rows(lab_texts(), load_tokenizer(folder, None), bench.of(32, 4), 128)
    compressor = compressed(model, rows, gptq_config(rows, "float32", 32), bench._replace(device=device))
    return torch.cat([layer.codes.flatten() for layer in compressor.quantised.values()]).tolist()


def requests(asked: Sequence[tuple[str, str]]) -> list[Instance]:
    from lm_eval.api.instance import Instance

    return [Instance("loglikelihood", {}, pair, 0, ("task", number, 1)) for number, pair in enumerate(asked)]


def gptq_config(rows: torch.Tensor, dtype: str, group_size: int) -> Any:
    from llmrepair.stages.compress.config import CompressConfig

    samples, seq_len = rows.shape
    return CompressConfig(bits=4, group_size=group_size, dtype=dtype, samples=samples, seq_len=seq_len)


def compressed(model: PreTrainedModel, rows: torch.Tensor, config: Any, bench: Bench) -> Any:
    """The compressor that has compressed the model. Peaks of memory begin here."""
    from llmrepair.pipeline.progress import Reporter
    from llmrepair.pipeline.record import Recorder
    from llmrepair.pipeline.stage import Context, Runtime
    from llmrepair.stages.compress.methods import METHODS
    from llmrepair.stages.compress.run import compress_layers_of

    context = Context(bench.folder, bench.folder, {}, Runtime(device=bench.device), Reporter(quiet=True))
    Recorder(interrupted_before=False)
    return compress_layers_of(model, rows, config, METHODS[config.method], context)


def compression(bench: Bench) -> None:
    """GPTQ, saving, and reloading."""
    from llmrepair.models.loading import load_model
    from llmrepair.stages.checkpoints.save import save_checkpoint

    checkpoint = bench.folder / "checkpoint"
    model, compressor = measured_gptq(bench, llama(bench, bench.size), bench.of(128, 4))
    save = partial(save_checkpoint, model, compressor.quantised, "compressed-tensors", checkpoint)
    bench.tell("save, s", timed(save)[0])
    word_tokenizer(bench.vocabulary).save_pretrained(checkpoint)
    del model, compressor, save
    clean_up()
    checkpoint.rename(bench.folder / SAVED)
    reload = partial(load_model, str(bench.folder / SAVED), None, bench.dtype, torch.device(bench.device))
    bench.tell("reload onto the device, s", timed(reload)[0])


def one_billion(bench: Bench) -> None:
    measured_gptq(bench, llama(bench, "tiny" if bench.size == "tiny" else "1b"), bench.of(128, 4))


def experts(bench: Bench) -> None:
    """A mixture of experts."""
    sizes = A_FEW_EXPERTS if bench.size == "tiny" else A_QUARTER_OF_QWEN3_MOE
    config = Qwen3MoeConfig(vocab_size=bench.vocabulary, max_position_embeddings=MAX_LENGTH, **sizes)
    scored(bench, random_model(bench, config), 0, bench.of(QUESTIONS // 4, 16))
    bench.tell("GPTQ", "refused: all experts of a block are in one tensor")


def measured_gptq(bench: Bench, model_config: PreTrainedConfig, samples: int) -> tuple[PreTrainedModel, Any]:
    """Compresses a model in 4 bits on random words; the model and its compressor. The model is on the device, as `compress`
    holds one that takes up to half of it."""
    from tune import random_rows

    from llmrepair.pipeline.record import peak_memory

    rows = random_rows(bench.vocabulary, samples, bench.of(2048, 64))
    config = gptq_config(rows, bench.dtype, bench.of(128, 32))
    needs = estimated_memory(bench, model_config, config)  # counts what the process holds by now
    model = random_model(bench, model_config)
    counts = [sum(weight.numel() for weight in weights) for weights in (model.model.layers.parameters(), matrices(model))]
    bench.tell("of the blocks' weights, compressed, %", 100 * counts[1] / counts[0])
    seconds, compressor = timed(partial(compressed, model, rows, config, bench))
    bench.tell("compress, s", seconds)
    bench.tell("of that solving, s", sum(layer["seconds"] for layer in compressor.told))
    bench.tell("tokens/s", rows.numel() / seconds)
    bench.tell("one pass and Hessians, TFLOP/s", gptq_flops(model, rows.numel()) / seconds / 1e12)
    for where, expected in {"host": needs.host, "cuda:0": needs.device}.items():
        if where in (peaks := peak_memory()):
            bench.tell(f"{where}, peak / estimate", f"{peaks[where] / 1e9:.2f} / {expected / 1e9:.2f} GB")
    return model, compressor


def matrices(model: PreTrainedModel) -> list[torch.Tensor]:
    from llmrepair.models.loading import compressible_layers

    return [layer.weight for layer in compressible_layers(model).values()]


def gptq_flops(model: PreTrainedModel, tokens: int) -> float:
    """A pass of the text, and a Hessian for each input that layers share; solving is not counted."""
    inputs = ("q_proj", "o_proj", "gate_proj", "down_proj")
    columns = [layer.in_features for name, layer in model.named_modules() if name.endswith(inputs)]
    return 2 * tokens * (weights_used(model) + sum(count**2 for count in columns))


def estimated_memory(bench: Bench, model_config: PreTrainedConfig, config: Any) -> Any:
    """What `memory.py` expects of a model in a folder. Its weights are a file that is as large and has nothing in it."""
    from llmrepair.models.loading import meta_model
    from llmrepair.pipeline.stage import Runtime
    from llmrepair.stages.compress.memory import estimate
    from llmrepair.stages.compress.methods import METHODS
    from llmrepair.stages.sources.models import ModelSource

    folder = bench.folder / f"shape-{model_config.model_type}-{model_config.num_hidden_layers}"
    model_config.save_pretrained(folder)
    weights = sum(parameter.numel() for parameter in meta_model(str(folder), None).parameters())
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(weights * getattr(torch, bench.dtype).itemsize)
    return estimate(ModelSource(str(folder), None, {}), config, METHODS[config.method], Runtime(device=bench.device)).needs()


def scoring(bench: Bench) -> None:
    """Questions with four answers each, beside lm-eval's `hf` in the batch that takes as much memory."""
    model = random_model(bench, llama(bench, bench.size))
    for shots in (0, 5):
        scored(bench, model, shots, bench.of(QUESTIONS, 16))


def scored(bench: Bench, model: PreTrainedModel, shots: int, questions: int) -> None:
    from lm_eval.models.huggingface import HFLM

    from llmrepair.models.harness import RepairedLM

    def tell(what: str, value: float) -> None:
        bench.tell(f"{shots}-shot, {what}", value)

    tokenizer = word_tokenizer(bench.vocabulary)
    asked = list(islice(questions_and_answers(bench.vocabulary, shots), questions * CHOICES))
    some = [pair for number, pair in enumerate(asked) if number // CHOICES % SHARE_ASKED_OF_LM_EVAL == 0]
    repaired = partial(RepairedLM, model, tokenizer, None, MAX_LENGTH)  # a new one each time: it keeps its answers
    asking(repaired(), asked[:WARM_UP])
    ours = asking(repaired(), asked)
    tell("s", ours.seconds)
    tell("tokens computed", ours.tokens)
    tell("TFLOP/s", 2 * weights_used(model) * ours.tokens / ours.seconds / 1e12)
    tell("GB above the weights", ours.peak_bytes / 1e9)
    ours_of_some = asking(repaired(), some)

    hf = partial(HFLM, pretrained=model, tokenizer=tokenizer, max_length=MAX_LENGTH)
    rows = rows_within(ours.peak_bytes, hf, sorted(some, key=lambda pair: -len(" ".join(pair).split())))
    theirs = asking(hf(batch_size=rows), some)
    tell("hf's rows at once", rows)
    tell("hf's GB above the weights", theirs.peak_bytes / 1e9)
    tell(f"hf, s of 1/{SHARE_ASKED_OF_LM_EVAL} of the questions", theirs.seconds)
    tell("hf, tokens computed of these", theirs.tokens)
    tell("times as fast", theirs.seconds * len(asked) / len(some) / ours.seconds)
    tell("times as fast, of these questions alone", theirs.seconds / ours_of_some.seconds)
    tell("nats apart", max(abs(a - b) for a, b in zip(ours_of_some.scores, theirs.scores, strict=True)))


class Asked(NamedTuple):
    scores: list[float]
    seconds: float
    tokens: int
    """That went through the blocks, padding included."""
    peak_bytes: int
    """Of a GPU, above those at the start; 0 without one."""


def asking(language_model: HFLM, asked: Sequence[tuple[str, str]]) -> Asked:
    counts: list[int] = []

    def count(module: torch.nn.Module, arguments: Any, options: dict[str, Any]) -> None:
        counts.append((arguments[0] if arguments else options["hidden_states"]).shape[:2].numel())

    hook = language_model.model.model.layers[0].register_forward_pre_hook(count, with_kwargs=True)
    before = fresh_peak()
    seconds, found = timed(lambda: language_model.loglikelihood(requests(asked), disable_tqdm=True))
    hook.remove()
    peak = torch.cuda.max_memory_allocated() - before if torch.cuda.is_initialized() else 0
    return Asked([score for score, _ in found], seconds, sum(counts), peak)


def fresh_peak() -> int:
    """Bytes on a GPU now, from which its peak is counted anew."""
    clean_up()
    if not torch.cuda.is_initialized():
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def rows_within(peak: int, hf: Callable[..., HFLM], longest_first: Sequence[tuple[str, str]]) -> int:
    """How many rows lm-eval's model takes at once within a peak, by what 8 and 16 of the longest take; 16 without a GPU."""
    eight, sixteen = (asking(hf(batch_size=rows), longest_first[:rows]).peak_bytes for rows in (8, 16))
    return max(1, int(16 + (peak - sixteen) * 8 / (sixteen - eight))) if sixteen > eight else 16


def questions_and_answers(vocabulary: int, shots: int) -> Iterator[tuple[str, str]]:
    """Contexts and answers of random words, as long as those of ARC; examples in front are other ones for each question."""
    generator = torch.Generator().manual_seed(0)

    def words(shortest: int, longest: int) -> str:
        count = int(torch.randint(shortest, longest + 1, (1,), generator=generator))
        return " ".join(f"w{word}" for word in torch.randint(4, vocabulary, (count,), generator=generator).tolist())

    def question() -> str:
        return f"Question: {words(10, 40)}\nAnswer:"

    while True:
        context = "".join(f"{question()} {words(1, 8)}\n\n" for _ in range(shots)) + question()
        yield from ((context, f" {words(1, 8)}") for _ in range(CHOICES))


def prompts(bench: Bench) -> None:
    """A choice among four prompts beside one, in single passes and in scoring."""
    from llmrepair.models.harness import RepairedLM
    from llmrepair.models.prompt_cache import build_prompt_cache
    from llmrepair.models.prompted import PromptedModel
    from llmrepair.models.routing import Router
    from llmrepair.models.selection import FixedSelector, RoutedSelector

    model = random_model(bench, llama(bench, bench.size))
    vectors = some_prompts(bench, model, 4)
    pool = build_prompt_cache(model, vectors)
    idp = PromptedModel(model, pool, RoutedSelector(Router(model, pool), 8))
    one = PromptedModel(model, build_prompt_cache(model, vectors[:1]), FixedSelector(0))
    ratios = []
    for batch, context in ((8, 1000), (8, 200), (1, 200), (1, 32)):
        ids = torch.randint(4, bench.vocabulary, (batch, bench.of(context, 16)), device=bench.device)
        with torch.inference_mode():
            seconds = side_by_side({"idp": partial(a_pass, idp, ids), "one": partial(a_pass, one, ids)}, bench.of(7, 1))
        ratios.append(statistics.median(a / b for a, b in zip(seconds["idp"], seconds["one"], strict=True)))
        bench.tell(f"{batch} x {context}, one prompt, ms", 1000 * statistics.median(seconds["one"]))
        bench.tell(f"{batch} x {context}, IDP / one prompt", ratios[-1])
    bench.tell("IDP / one prompt, at most", max(ratios))
    asked = list(islice(questions_and_answers(bench.vocabulary, 0), bench.of(QUESTIONS // 2, 16) * CHOICES))
    tokenizer = word_tokenizer(bench.vocabulary)
    caches = {"one": build_prompt_cache(model, vectors[:1]), "idp": pool}

    def scored_behind(name: str) -> float:
        selector = RoutedSelector(Router(model, pool), bench.of(128, 8)) if name == "idp" else None
        behind = RepairedLM(model, tokenizer, None, MAX_LENGTH - bench.prompt_tokens, caches[name], selector)
        return asking(behind, asked).seconds

    seconds = side_by_side({name: partial(scored_behind, name) for name in caches}, bench.of(3, 1))
    bench.tell("scoring, one prompt, s", statistics.median(seconds["one"]))
    bench.tell(
        "scoring, IDP / one prompt", statistics.median(a / b for a, b in zip(seconds["idp"], seconds["one"], strict=True))
    )


def some_prompts(bench: Bench, model: PreTrainedModel, count: int) -> list[torch.Tensor]:
    shape = (bench.prompt_tokens, model.config.hidden_size)
    return [0.02 * torch.randn(shape, device=model.device, dtype=model.dtype) for _ in range(count)]


def a_pass(model: Any, ids: torch.Tensor) -> float:
    return timed(lambda: model(input_ids=ids, attention_mask=torch.ones_like(ids)))[0]


def tuning(bench: Bench) -> None:
    """Steps of 16 x 128 tokens beside peft's in a loop of plain torch, from the same values over the same rows."""
    import tune

    from llmrepair.models.training import Recipe

    steps = bench.of(40, 2)
    for name, prompt in (("prompt", bench.prompt_tokens), ("LoRA", 0)):
        case = tune.Case(prompt, bench.of(128, 16), bench.of(16, 2))
        rows = tune.random_rows(bench.vocabulary, 8 * case.rows, case.seq_len).to(bench.device)
        tuned = {}
        for side in (tune.ours, peft_alone):
            for count in (2, steps):  # the first warms up
                recipe = Recipe(count, 0.01 if case.prompt else 0.001, case.rows, 0)
                tuned[side] = side(random_model(bench, llama(bench, bench.size)), rows, case, recipe)
                clean_up()
        ours, theirs = tuned[tune.ours], tuned[peft_alone]
        bench.tell(f"{name}, ms a step", 1000 * ours.seconds / steps)
        bench.tell(f"{name}, peft, ms a step", 1000 * theirs.seconds / steps)
        bench.tell(f"{name}, times as fast", theirs.seconds / ours.seconds)
        bench.tell(f"{name}, tokens/s", steps * case.rows * case.seq_len / ours.seconds)
        bench.tell(f"{name}, losses apart, %", 100 * abs(ours.loss / theirs.loss - 1))


def peft_alone(model: PreTrainedModel, rows: torch.Tensor, case: Any, recipe: Any) -> Any:
    """A `tune.Tuned`."""
    import tune
    from peft import PromptTuningConfig, TaskType, get_peft_model

    from llmrepair.models.soft_prompt import vocabulary_prompt
    from llmrepair.models.training import learning_rate, rows_of_step

    if case.prompt:
        adapted = get_peft_model(model, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=case.prompt))
        adapted.prompt_encoder.default.embedding.weight.data.copy_(vocabulary_prompt(model, case.prompt, 0, []))
    else:
        adapted = tune.lora(model)
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.0)

    def loss_of(some: torch.Tensor) -> torch.Tensor:
        return adapted(input_ids=some, attention_mask=torch.ones_like(some), labels=some, use_cache=False).loss

    def train() -> None:
        for step in range(recipe.steps):
            optimizer.param_groups[0]["lr"] = learning_rate(recipe, step)
            optimizer.zero_grad(set_to_none=True)
            loss_of(rows[rows_of_step(len(rows), case.rows, recipe.seed, step)]).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()

    seconds, _ = timed(train)
    with torch.no_grad():
        return tune.Tuned(seconds, statistics.mean(loss_of(part).item() for part in rows.split(case.rows)))


def generation(bench: Bench) -> None:
    """Tokens after the first, behind a prompt beside `model.generate` without one."""
    from idp import decoded

    from llmrepair.models.prompt_cache import build_prompt_cache
    from llmrepair.models.prompted import PromptedModel
    from llmrepair.models.selection import FixedSelector

    model = random_model(bench, llama(bench, bench.size))
    weights = sum(parameter.nbytes for parameter in model.parameters())
    prompted = PromptedModel(model, build_prompt_cache(model, some_prompts(bench, model, 1)), FixedSelector(0))
    for batch in (1, 32):
        ids = torch.randint(4, bench.vocabulary, (batch, bench.of(128, 8)), device=bench.device)
        with torch.inference_mode():
            seconds = side_by_side(
                {"ours": partial(decoded, prompted, ids), "plain": partial(decoded, model, ids)}, bench.of(3, 1)
            )
        ours, plain = (statistics.median(seconds[side]) for side in ("ours", "plain"))
        bench.tell(f"{batch} at once, tokens/s behind a prompt", batch / ours)
        bench.tell(f"{batch} at once, tokens/s of model.generate", batch / plain)
        bench.tell(f"{batch} at once, weights read, GB/s", weights / ours / 1e9)


def start(bench: Bench) -> None:
    """`eval` of a few questions in a new process, on what `compression` has saved; its numbers come at its end.

    This machine has just written the files, so they may be in its memory.
    """
    from start import WATCHED

    saved = bench.folder / SAVED
    if not saved.exists():
        raise LeftOut("the section `compression` has saved no checkpoint")
    options = ["--model", saved, "--method", "none", "--tasks", "lab_mc", "--limit", "4", "--dtype", bench.dtype]
    options += ["--device", bench.device, "--runs", bench.folder / "runs"]
    begun = time.time()
    done = subprocess.run([sys.executable, "-c", WATCHED, "eval", *options], stdout=subprocess.PIPE, text=True, check=True)
    bench.tell("first number, s", time.time() - begun)
    moments = {"says": "first line, s", "scores": "model ready, s"}
    for name, *at in filter(None, map(str.split, done.stdout.splitlines())):
        if name in moments:
            bench.tell(moments[name], float(at[0]) - begun)
