"""The evaluate stage: config, inputs, checks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.stage import Needs, Runtime, Stage
from llmrepair.stages.evaluate.labels import recovery_label
from llmrepair.stages.evaluate.own_tasks import GROUPS, OWN_TASKS
from llmrepair.stages.evaluate.tasks import expand, task_identities
from llmrepair.stages.evaluate.text_prompts import SIZES, most_prompt_tokens, prompt_tokens
from llmrepair.stages.evaluate.web_questions import WEBQS_GENERATE
from llmrepair.stages.fields import Names, SizedConfig, invalid
from llmrepair.stages.sources import load_config as model_config
from llmrepair.stages.sources import resolve_text, roughly_needed
from llmrepair.stages.tune_prompts import TunePrompts
from llmrepair.stages.tuning import Tune
from llmrepair.stages.weights import Weights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ONLY_WITH = {
    "select": "prompt",
    "idp_layers": "idp",
    "idp_reduce": "idp",
    "idp_normalise": "idp",
    "idp_per": "idp",
    "hard_prompt": "hard",
    "icl_examples": "icl",
    "lora_merged": "lora",
}
"""Option -> the one recovery with which it has an effect."""
_UNTUNED = ("none", "hard", "icl")
_SELECT = re.compile(r"best-validation|random|loss|ensemble|oracle|fixed:\d+")


class EvaluateConfig(SizedConfig):
    """What a model is asked, and with which repair in place."""

    references: ClassVar[frozenset[str]] = frozenset({"include_path", "tasks_data", "tuning_data"})
    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = SIZES

    recovery: Literal["none", "hard", "icl", "prompt", "idp", "ptune", "lora"] = Field(
        "none",
        description="none; hard: a text in front of each input; icl: examples from --tuning-data in front of it; prompt: soft "
        "prompts of the pool, as --select says; idp: the one that the input attends to most; ptune: prefix tuning or p-tuning; "
        "lora",
    )
    select: str = Field(
        "best-validation",
        description="which prompt --recovery prompt takes: best-validation (lowest held-out loss), fixed:I (counted from 0), "
        "random (drawn by the question and --seed), loss (behind which the question itself is likeliest), ensemble (all: mean "
        "log-probabilities), oracle (each document's best, found by its answers: a bound, no method)",
    )
    # stands before `tasks`, whose names it helps to understand
    include_path: Path | None = Field(None, description="folder with YAML files of further tasks and groups, and their code")
    tasks: Names = Field(
        ("lab_qa",),
        description=f"tasks, groups and tags of lm-eval or --include-path, patterns such as 'blimp_*', or ours: "
        f"{', '.join((*OWN_TASKS, WEBQS_GENERATE, *GROUPS))}",
    )
    tasks_data: Path | None = Field(
        None, description="folder from which lm-eval tasks read <task>.jsonl instead of the Hub, and factrecall LAMA's files"
    )
    limit: int | None = Field(None, ge=1, description="only the first so many documents of each task")
    num_fewshot: int | None = Field(None, ge=0, description="examples in front of each question  [default: the task's own]")
    apply_chat_template: bool = Field(
        False, description="ask in the turns of the tokenizer's chat template, examples too, as lm-eval does"
    )
    system: str | None = Field(None, description="system instruction in front of each question")
    hard_prompt: str = Field(SIZES["medium"]["hard_prompt"], description="the text of --recovery hard")
    icl_examples: int = Field(
        SIZES["medium"]["icl_examples"],
        ge=1,
        description="texts that --recovery icl puts in front, the first of the tuning text",
    )
    tuning_data: str = Field(
        "lab",
        description="text to tune on and to take examples from: lab, a .txt or .jsonl file, a Hub data set (name or "
        "name:config)",
    )
    lora_merged: bool = Field(
        False,
        description="add the adapter to the weights: it then costs nothing at inference, and what compression gave (packed "
        "weights, zeros) is gone",
    )
    on_dense: bool = Field(
        False,
        description="put the repair that was tuned for the compressed model on the dense one: what it does where nothing was "
        "lost, a control",
    )
    idp_layers: str = Field(
        "first", description="layers that vote: first, all, or a list such as 0,2; up to the last one all is computed twice"
    )
    idp_reduce: Literal["mean", "sum", "max"] = Field("mean", description="a prompt's vote over its tokens")
    idp_normalise: Literal["none", "length"] = Field(
        "none", description="length: a prompt's vote is divided by the number of its tokens"
    )
    idp_per: Literal["sequence", "token"] = Field(
        "sequence",
        description="what chooses; token, an experiment: each token sees the prompt that it attends to most itself, and all "
        "prompts in the layers before the last one that votes",
    )

    @field_validator("include_path", "tasks_data")
    @classmethod
    def _folder_exists(cls, folder: Path | None, info: ValidationInfo) -> Path | None:
        if folder is not None and not folder.is_dir():
            option = f"--{str(info.field_name).replace('_', '-')}"
            raise invalid(Problem(f"there is no folder `{folder}`", f"give a folder with {option}"))
        return folder

    @field_validator("tasks")
    @classmethod
    def _tasks_exist(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if "include_path" not in info.data:  # it is wrong itself, and names may be its
            return names
        try:
            return expand(names, info.data["include_path"])
        except RequestError as error:
            raise invalid(error.problems[0]) from error

    @field_validator("select")
    @classmethod
    def _selector_exists(cls, select: str) -> str:
        if not _SELECT.fullmatch(select):
            hint = "give --select best-validation, fixed:I, random, loss, ensemble or oracle"
            raise invalid(Problem(f"`{select}` is no way to choose a prompt", hint))
        return select

    @field_validator("hard_prompt")
    @classmethod
    def _is_a_text(cls, hard_prompt: str) -> str:
        if not hard_prompt.strip():
            raise invalid(Problem("an empty text is no prompt", "give a sentence or more with --hard-prompt"))
        return hard_prompt

    @field_validator("idp_layers")
    @classmethod
    def _layers_are_named(cls, layers: str) -> str:
        if layers not in ("first", "all") and not re.fullmatch(r"\d+(,\d+)*", layers):
            raise invalid(Problem(f"`{layers}` names no layers", "give --idp-layers first, all, or a list such as 0,2"))
        return layers

    @property
    def fixed_prompt(self) -> int | None:
        """The prompt that `--select fixed:I` names."""
        kind, _, number = self.select.partition(":")
        return int(number) if kind == "fixed" else None

    def without_effect(self) -> frozenset[str]:
        unused = {name for name, recovery in _ONLY_WITH.items() if recovery != self.recovery}
        return super().without_effect() | unused | ({"on_dense"} if self.recovery in _UNTUNED else set())


@dataclass
class Evaluate(Stage):
    """Compressed checkpoint and its repair -> metrics and one line per item."""

    name: ClassVar[str] = "evaluate"
    code: ClassVar[str] = "llmrepair.stages.evaluate.run"
    after_interruption: ClassVar[str] = "goes on from the items already scored"
    config: EvaluateConfig
    compressed: Weights
    repair: Tune | None
    task_identities: dict[str, dict[str, Any]] = field(init=False)
    tuning_data: dict[str, Any] = field(init=False)

    def inputs(self) -> dict[str, Stage]:
        return {"compressed": self.compressed} | ({"repair": self.repair} if self.repair is not None else {})

    def sources(self, digests: DigestCache) -> dict[str, Any]:
        config = self.config
        self.task_identities = task_identities(config.tasks, config.include_path, config.tasks_data, digests.digest)
        if config.recovery != "icl":
            return {"tasks": self.task_identities}
        self.tuning_data = resolve_text(config.tuning_data, digests.digest)
        return {"tasks": self.task_identities, "tuning_data": self.tuning_data}

    def check(self) -> list[Problem]:
        return self._chat_problems() + self._layer_problems() + self._selection_problems() + self._text_problems()

    def _chat_problems(self) -> list[Problem]:
        if not self.config.apply_chat_template:
            return []
        template = self._tokenizer().chat_template
        if template and (isinstance(template, str) or "default" in template):
            return []
        hint = "leave --apply-chat-template out, or give an instruction-tuned model"
        return [Problem(f"`{self.compressed.config.model}` has no chat template", hint, "apply_chat_template")]

    def _layer_problems(self) -> list[Problem]:
        if self.config.recovery != "idp" or self.config.idp_layers in ("first", "all"):
            return []
        layers = model_config(self.compressed.model)["num_hidden_layers"]
        beyond = [layer for layer in self.config.idp_layers.split(",") if int(layer) >= layers]
        hint = f"layers are counted from 0 to {layers - 1}"
        return [
            Problem(f"`{self.compressed.config.model}` has no layer {layer} that could vote", hint, "idp_layers")
            for layer in beyond
        ]

    def _selection_problems(self) -> list[Problem]:
        if not isinstance(self.repair, TunePrompts) or self.config.fixed_prompt is None:
            return []
        pool = len(self.repair.config.lengths)
        if self.config.fixed_prompt < pool:
            return []
        hint = f"prompts are counted from 0 to {pool - 1}; --lengths says how many there are"
        return [Problem(f"there is no prompt {self.config.fixed_prompt} in a pool of {pool}", hint, "select")]

    def _text_problems(self) -> list[Problem]:
        positions = model_config(self.compressed.model).get("max_position_embeddings")
        if self.config.recovery != "hard" or positions is None:
            return []
        tokens, most = len(prompt_tokens(self.config.hard_prompt, self._tokenizer())), most_prompt_tokens(positions)
        if tokens <= most:
            return []
        hint = f"give a shorter one: of the model's {positions} positions half stay for the input"
        return [Problem(f"a text prompt of {tokens} tokens is longer than {most}", hint, "hard_prompt")]

    def _tokenizer(self) -> PreTrainedTokenizerBase:
        from llmrepair.models.loading import load_tokenizer

        model = self.compressed.model
        return load_tokenizer(model.location, model.revision, self.compressed.config.trust_remote_code)

    def label(self) -> str:
        budget = self.repair.config.budget if self.repair is not None else None
        recovery = recovery_label(self.config.identity(), budget) if self.config.recovery != "none" else "no repair"
        return f"{self.compressed.label()}: {recovery} on {', '.join(self.config.tasks)}"

    def tags(self) -> dict[str, str]:
        return self.compressed.tags() | {"recovery": self.config.recovery}

    def needs(self, runtime: Runtime) -> Needs:
        return roughly_needed(self.compressed.model)
