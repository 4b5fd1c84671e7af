"""The evaluate stage: config, inputs, checks."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.stage import Context, Needs, Runtime, Stage, StageConfig
from llmrepair.stages.compress import Compress
from llmrepair.stages.evaluate.own_tasks import GROUPS, OWN_TASKS
from llmrepair.stages.evaluate.tasks import expand, task_identities
from llmrepair.stages.evaluate.web_questions import WEBQS_GENERATE
from llmrepair.stages.fields import Names, invalid
from llmrepair.stages.sources import load_config as model_config
from llmrepair.stages.sources import roughly_needed
from llmrepair.stages.tuning import Tune


class EvaluateConfig(StageConfig):
    """What a model is asked, and with which repair in place."""

    references: ClassVar[frozenset[str]] = frozenset({"include_path", "tasks_data"})

    recovery: Literal["none", "prompt", "idp", "ptune", "lora"] = Field(
        "none",
        description="none; prompt: the pool's best on held-out loss; idp: one prompt chosen per input; ptune: prefix tuning or "
        "p-tuning; lora",
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
    idp_layers: str = Field("first", description="layers that vote: first, all, or a list such as 0,2")
    idp_reduce: Literal["mean", "sum"] = Field("mean", description="a prompt's vote over its tokens")

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

    @field_validator("idp_layers")
    @classmethod
    def _layers_are_named(cls, layers: str) -> str:
        if layers not in ("first", "all") and not re.fullmatch(r"\d+(,\d+)*", layers):
            raise invalid(Problem(f"`{layers}` names no layers", "give --idp-layers first, all, or a list such as 0,2"))
        return layers

    def without_effect(self) -> frozenset[str]:
        return frozenset() if self.recovery == "idp" else frozenset({"idp_layers", "idp_reduce"})


@dataclass
class Evaluate(Stage):
    """Compressed checkpoint and its repair -> metrics and one line per item."""

    name: ClassVar[str] = "evaluate"
    code: ClassVar[str] = "llmrepair.stages.evaluate.run"
    after_interruption: ClassVar[str] = "goes on from the items already scored"
    config: EvaluateConfig
    compressed: Compress
    repair: Tune | None
    task_identities: dict[str, dict[str, Any]] = field(init=False)

    def inputs(self) -> dict[str, Stage]:
        return {"compressed": self.compressed} | ({"repair": self.repair} if self.repair is not None else {})

    def sources(self, digests: DigestCache) -> dict[str, Any]:
        config = self.config
        self.task_identities = task_identities(config.tasks, config.include_path, config.tasks_data, digests.digest)
        return {"tasks": self.task_identities}

    def check(self) -> list[Problem]:
        return self._chat_problems() + self._layer_problems()

    def _chat_problems(self) -> list[Problem]:
        if not self.config.apply_chat_template:
            return []
        from llmrepair.models.loading import load_tokenizer

        model = self.compressed.model
        template = load_tokenizer(model.location, model.revision, self.compressed.config.trust_remote_code).chat_template
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

    def label(self) -> str:
        return f"{self.compressed.label()}: {recovery_label(self)} on {', '.join(self.config.tasks)}"

    def tags(self) -> dict[str, str]:
        return self.compressed.tags() | {"recovery": self.config.recovery}

    def needs(self, runtime: Runtime) -> Needs:
        return roughly_needed(self.compressed.model)

    def run(self, context: Context) -> dict[str, Any]:
        from llmrepair.stages.evaluate.run import run

        return run(self, context)


def recovery_label(stage: Evaluate) -> str:
    labels = {"none": "no repair", "prompt": "one prompt", "idp": "IDP", "ptune": "virtual tokens", "lora": "LoRA"}
    return labels[stage.config.recovery]
