"""A toy repair: what the output head gives is multiplied by a number. `llmrepair eval --recovery louder --louder-by 1.2`"""

from pydantic import Field

from llmrepair.pipeline.stage import StageConfig
from llmrepair.stages.repairs.base import Repair


class LouderOptions(StageConfig):
    louder_by: float = Field(1.1, gt=0, allow_inf_nan=False, description="what --recovery louder multiplies logits by")


class Louder(Repair):
    name, title = "louder", "louder head"
    help = "logits multiplied by --louder-by"
    colour, shape = "red", "bar"
    side = "weights"
    placed_by = __name__  # the module with `place`

    def options(self):
        return LouderOptions

    def label(self, options):
        return f"head x {options['louder_by']:g}"


def place(placing):
    from llmrepair.stages.repairs.placed import Placed

    def louder(head, hidden, logits):  # no change of its weight, which is often the input embeddings' too
        return logits * placing.options.louder_by

    placing.model.get_output_embeddings().register_forward_hook(louder)
    return Placed(placing.model)


LOUDER = Louder()
