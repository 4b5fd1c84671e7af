"""A toy method: weights become zero at random. `llmrepair compress --method random --sparsity 0.3`"""

from llmrepair.stages.compress.methods.base import Method, Pruner


class RandomPruner(Pruner):
    name = "random"

    def mask(self, weight, hessian, pattern):
        import torch

        scores = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0))
        return pattern.keep(scores.to(weight.device))


RANDOM = Method(pruner=RandomPruner())
