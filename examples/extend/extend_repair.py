"""A toy repair: the output head is multiplied by a number. `llmrepair eval --recovery louder --louder-by 1.2`"""

from pydantic import Field

from llmrepair.pipeline.stage import StageConfig
from llmrepair.stages.repairs.base import Repair


class LouderOptions(StageConfig):
    louder_by: float = Field(1.1, gt=0, description="what --recovery louder multiplies the output head by")


class Louder(Repair):
    name, title = "louder", "louder head"
    help = "the output head multiplied by --louder-by"
    colour, shape = "red", "circle"
    placed_by = __name__  # the module with `place`

    def options(self):
        return LouderOptions

    def label(self, options):
        return f"head x {options['louder_by']:g}"


def place(placing):
    import torch

    from llmrepair.stages.repairs.placed import Placed

    head = placing.model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight * placing.options.louder_by, requires_grad=False)
    return Placed(placing.model, changes_weights=True)


LOUDER = Louder()
