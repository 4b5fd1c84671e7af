"""A toy control: it says other words than it means. `llmrepair control --control shuffled`"""

from llmrepair.stages.controls.base import ControlKind


class Shuffled(ControlKind):
    name = "shuffled"
    help = "rows of the output head in another order"
    options = frozenset()  # none but its seed

    def problems(self, control):
        return []

    def make(self, model, tokenizer, control, context):
        import torch

        weight = model.get_output_embeddings().weight
        order = torch.randperm(len(weight), generator=torch.Generator().manual_seed(control.config.control_seed))
        weight.data = weight.data[order]
        return {"rows": len(order)}


SHUFFLED = Shuffled()
