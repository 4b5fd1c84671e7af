"""The evaluate stage: config, inputs, checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.stage import Needs, Runtime, Stage, StageConfig
from llmrepair.stages.evaluate.question import chat_problem
from llmrepair.stages.evaluate.tasks.asked import definitions, expand, leaves, task_identities
from llmrepair.stages.evaluate.tasks.definitions import plain_yaml
from llmrepair.stages.evaluate.tasks.own_tasks import GROUPS, OWN_TASKS
from llmrepair.stages.evaluate.tasks.web_questions import WEBQS_GENERATE
from llmrepair.stages.repairs import REPAIRS
from llmrepair.stages.repairs.base import Repair
from llmrepair.stages.repairs.tuning.stage import Tune
from llmrepair.stages.sources.fields import Names, invalid
from llmrepair.stages.sources.models import roughly_needed
from llmrepair.stages.sources.texts import text_libraries
from llmrepair.stages.sources.weights import Weights

if TYPE_CHECKING:
    RecoveryName = str
else:
    RecoveryName = Literal[tuple(REPAIRS)]


class RecoveryConfig(StageConfig):
    """Which repair is in place."""

    recovery: RecoveryName = Field(
        "none", description="; ".join(f"{repair.name}: {repair.help}" for repair in REPAIRS.values())
    )


class EvaluateConfig(RecoveryConfig):
    """What a model is asked, and with which repair in place."""

    references: ClassVar[frozenset[str]] = frozenset({"include_path", "tasks_data"})

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
    lm_eval_compatible: bool = Field(
        False,
        description="give lm-eval's numbers also where they are wrong, to compare with those of others",
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


@dataclass
class Evaluate(Stage):
    """Compressed checkpoint and its repair -> metrics and one line per item."""

    name: ClassVar[str] = "evaluate"
    code: ClassVar[str] = "llmrepair.stages.evaluate.run"
    after_interruption: ClassVar[str] = "goes on from the items already scored"
    config: EvaluateConfig
    compressed: Weights
    repair: Repair
    placing: StageConfig
    """The repair's own options."""
    tuned: Tune | None = None
    """What the repair was tuned by; None of one that is not tuned."""
    measured: Stage | None = None
    """What measured that for the repair's options; None where they need no more."""
    task_identities: dict[str, dict[str, Any]] = field(init=False)
    repair_sources: dict[str, Any] = field(init=False)

    def modules(self) -> tuple[str, ...]:
        return self.code, self.repair.placed_by

    def libraries(self) -> tuple[str, ...]:
        theirs = () if self.task_identities.keys() <= OWN_TASKS.keys() else ("datasets",)
        scoring = ("lm_eval", "numpy", *theirs)
        return (*self.compressed.read_with(), *scoring, *self.repair.libraries, *text_libraries(*self.repair_sources.values()))

    def identity(self) -> dict[str, Any]:
        return self.config.identity() | self.placing.identity()

    def inputs(self) -> dict[str, Stage]:
        made: dict[str, Stage | None] = {"compressed": self.compressed, "repair": self.tuned, "measured": self.measured}
        return {name: stage for name, stage in made.items() if stage is not None}

    def sources(self, digests: DigestCache) -> dict[str, Any]:
        config = self.config
        self.task_identities = task_identities(config.tasks, config.include_path, config.tasks_data, digests.digest)
        self.repair_sources = self.repair.sources(self.placing, digests)
        return {"tasks": self.task_identities, **self.repair_sources}

    def options(self) -> dict[str, Any]:
        return super().options() | self.placing.model_dump(mode="json", exclude_unset=True)

    def output_types(self) -> dict[str, str | None]:
        """Each task -> how lm-eval asks it; None of a class of its own, which tells when it is made."""
        names, include_path = self.config.tasks, self.config.include_path
        configs = {name: OWN_TASKS[name].config(self.config.tasks_data) for name in names if name in OWN_TASKS}
        configs |= {task.name: task.config for task in leaves(definitions(names, include_path, plain_yaml))}
        return {name: None if "class" in each else each.get("output_type", "generate_until") for name, each in configs.items()}

    def check(self) -> list[Problem]:
        from llmrepair.stages.evaluate.check import document_problems

        return document_problems(self) + self._chat_problems() + self.repair.problems(self.placing, self.compressed, self.tuned)

    def _chat_problems(self) -> list[Problem]:
        if not self.config.apply_chat_template:
            return []
        problem = chat_problem(self.compressed.tokenizer(), self.compressed.config.model, "apply_chat_template")
        return [problem] if problem is not None else []

    def label(self) -> str:
        untuned = ", untuned" if self.tuned is not None and not self.tuned.config.budget else ""
        repair = self.repair.phrase(self.placing.identity()) + untuned
        return f"{self.compressed.label()}: {repair} on {', '.join(self.config.tasks)}"

    def tags(self) -> dict[str, str]:
        return self.compressed.tags() | {"recovery": self.config.recovery}

    def needs(self, runtime: Runtime) -> Needs:
        return roughly_needed(self.compressed.model)
