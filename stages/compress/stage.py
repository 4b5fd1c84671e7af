"""The compress stage: inputs, checks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.stage import Needs, Runtime
from llmrepair.stages.compress.config import CompressConfig, method_label
from llmrepair.stages.compress.methods import METHODS
from llmrepair.stages.compress.methods.base import Method
from llmrepair.stages.sources.models import ModelSource, load_config, model_name, roughly_needed
from llmrepair.stages.sources.texts import resolve_text, text_libraries
from llmrepair.stages.sources.weights import FORMAT_LIBRARIES, Weights


@dataclass
class Compress(Weights):
    """Model -> compressed checkpoint. Of the dense model (`--method none`) no copy is made, only measures are taken."""

    name: ClassVar[str] = "compress"
    code: ClassVar[str] = "llmrepair.stages.compress.run"
    after_interruption: ClassVar[str] = (
        "starts again, as long as no checkpoint was saved: llm-compressor cannot go on in the middle of a model"
    )
    config: CompressConfig
    model: ModelSource = field(init=False)
    digests: DigestCache = field(init=False)
    calibration: dict[str, Any] | None = field(init=False, default=None)

    @property
    def method(self) -> Method:
        return METHODS[self.config.method]

    def modules(self) -> tuple[str, ...]:
        return self.code, *self.method.modules()

    def libraries(self) -> tuple[str, ...]:
        if not self.method.parts:
            return self.read_with()
        own = ("llmcompressor", "compressed-tensors", *self.method.libraries())
        return (*self.read_with(), *own, *text_libraries(self.calibration))

    def read_with(self) -> tuple[str, ...]:
        return (*super().read_with(), *FORMAT_LIBRARIES.get(self._format(), ()))

    def _format(self) -> str:
        """Of the checkpoint, which of the dense model is what that is in itself."""
        if self.method.parts:
            return str(self.config.identity().get("format", "dense"))
        if self.imported is not None:  # which may not be there yet
            return "dense"
        return str((load_config(self.model).get("quantization_config") or {}).get("quant_method"))

    def sources(self, digests: DigestCache) -> dict[str, Any]:
        self.digests = digests
        self.model = self.find_model(digests)
        if self.method.parts:
            self.calibration = resolve_text(self.config.calibration, digests, "calibration")
        calibration = {"calibration": self.calibration} if self.calibration is not None else {}
        return {"model": self.model.identity} | calibration

    def check(self) -> list[Problem]:
        from llmrepair.stages.compress.check import problems_with_model

        return problems_with_model(self)

    def label(self) -> str:
        return f"{model_name(self.config.model)} {method_label(self.config.identity())}"

    def tags(self) -> dict[str, str]:
        return {"model": self.config.model, "method": self.config.method}

    def needs(self, runtime: Runtime) -> Needs:
        from llmrepair.models.dry_run import NeedsNumbers
        from llmrepair.stages.compress.memory import estimate

        try:
            return estimate(self.model, self.config, self.method, runtime).needs()
        except NeedsNumbers:
            return roughly_needed(self.model)

    def needs_with_other_options(self, runtime: Runtime) -> Iterator[tuple[str, Needs]]:
        from llmrepair.stages.compress.memory import estimate, other_requests

        if self.needs(runtime).is_rough:
            return
        for options, config, other_runtime in other_requests(self.config, runtime):
            yield options, estimate(self.model, config, self.method, other_runtime).needs()

    def checkpoint(self, artifact: Artifact) -> tuple[str, str | None]:
        if not self.method.parts:
            return self.model.location, self.model.revision
        return super().checkpoint(artifact)
