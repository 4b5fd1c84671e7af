"""Every method: one import and one place in the list.

Packages add theirs by an entry point of the group `llmrepair.methods`.
"""

from __future__ import annotations

from llmrepair.pipeline.registry import Registry
from llmrepair.stages.compress.methods.awq import AWQ
from llmrepair.stages.compress.methods.base import Method
from llmrepair.stages.compress.methods.gptq import GPTQ
from llmrepair.stages.compress.methods.magnitude import MAGNITUDE
from llmrepair.stages.compress.methods.rtn import RTN
from llmrepair.stages.compress.methods.sparsegpt import SPARSEGPT
from llmrepair.stages.compress.methods.wanda import WANDA

DENSE = Method()
METHODS: Registry[Method] = Registry(
    "method",
    "llmrepair.methods",
    [
        DENSE,
        Method(quantiser=RTN),
        Method(quantiser=GPTQ),
        Method(quantiser=AWQ),
        Method(pruner=MAGNITUDE),
        Method(pruner=WANDA),
        Method(pruner=SPARSEGPT),
        Method(WANDA, GPTQ),
        Method(SPARSEGPT, GPTQ),
    ],
)
