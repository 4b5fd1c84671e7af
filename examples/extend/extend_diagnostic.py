"""A toy diagnostic: how large the weights are. `llmrepair norms --method rtn --bits 3`"""

from dataclasses import dataclass

from llmrepair.pipeline.artifact import write_json
from llmrepair.pipeline.stage import Stage, StageConfig
from llmrepair.stages.diagnostics.base import Diagnostic


@dataclass
class WeightNorms(Stage):
    name, code = "norms", __name__  # whose `run` computes it
    config: StageConfig
    compressed: Stage

    def inputs(self):
        return {"compressed": self.compressed}

    def label(self):
        return f"{self.compressed.label()}: norms"


def run(stage, context):
    from llmrepair.stages.sources.loading import load_weights

    model, _ = load_weights(stage.compressed, context)
    norms = {name: round(float(weight.norm()), 4) for name, weight in model.named_parameters()}
    write_json(context.folder / "norms.json", {"norms": norms})
    return {"largest": max(norms.values())}


class Norms(Diagnostic):
    name = panel = field = "norms"
    help, result_file, shown_by = "Measure how large the weights are.", "norms.json", "extend_diagnostic_panel"

    def stage(self, config, made):
        return WeightNorms(config, made.weights)


NORMS = Norms()
