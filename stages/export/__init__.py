"""Export: a compressed model and its repair as files that transformers, peft and vLLM load. No stage: copying needs no key."""

from llmrepair.stages.export.convert import format_problem
from llmrepair.stages.export.files import check_target, write_export
from llmrepair.stages.export.merge import merge_problem
from llmrepair.stages.export.parts import Parts, find_parts

__all__ = ["Parts", "check_target", "find_parts", "format_problem", "merge_problem", "write_export"]
