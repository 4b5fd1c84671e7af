"""What a model says, asked for one text at a time: transformers and arithmetic, and nothing of this project."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Reference(NamedTuple):
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    longest: int  # tokens that the model takes behind what stands in front of each text
    front: Sequence[int] = ()  # which is token ids, or vectors [n, E] whose first has position `start`
    prompt: torch.Tensor | None = None
    start: int = 0

    def tokens(self, text: str, bare: bool = False) -> list[int]:
        """Begun once: by what stands in front, the text itself, its tokenizer, or where it is bare. Never ended."""
        tokens, bos = list(self.tokenizer(text, add_special_tokens=False).input_ids), self.tokenizer.bos_token_id
        begin = [self.tokenizer.eos_token_id if bos is None else bos]
        begins = bare or tokens[:1] == begin or self.tokenizer("").input_ids[:1] == [bos]
        return begin * (begins and list(self.front[:1]) != begin) + tokens[tokens[:1] == begin :]

    def choices(self, context: str, answers: Sequence[str]) -> list[tuple[float, bool]]:  # if one is bare, all are
        texts = context.rstrip(), *(context + answer for answer in answers)
        bare = len({tuple(self.tokens(text)[:1]) for text in texts}) > 1
        before, *wholes = (self.tokens(text, bare) for text in texts)
        return [self.choice(before, whole) for whole in wholes]

    def choice(self, before: list[int], whole: list[int]) -> tuple[float, bool]:
        first = next(place for place in range(len(whole)) if whole[place : place + 1] != before[place : place + 1])
        (both, greedy), (alone, _) = (self.scored(each, first, max(len(before), len(whole))) for each in (whole, before))
        return both - alone, greedy

    def rolling(self, text: str) -> float:
        tokens, begun = self.tokens(text, bare=True), len(self.tokens("", bare=True))
        windows = [(tokens[: start + self.longest], start) for start in range(begun, len(tokens), self.longest)]
        return sum(self.scored(window, start, len(window))[0] for window, start in windows)

    def scored(self, tokens: list[int], first: int, length: int) -> tuple[float, bool]:  # as much is lost as of `length` tokens
        rows = self.logits(tokens[max(0, length - self.longest - 1) : max(first, len(tokens) - 1)]).log_softmax(-1)
        pairs = list(zip(rows[len(rows) + first - len(tokens) :], tokens[first:], strict=True))
        return sum(float(row[token]) for row, token in pairs), all(int(row.argmax()) == token for row, token in pairs)

    def written(self, context: str, most: int, stop: Sequence[str]) -> tuple[str, float]:  # and the closest call on the way
        new, margin, stop = list[int](), 1.0, [*stop, self.tokenizer.eos_token]
        tokens = (self.tokens(context) or self.tokens("", bare=True))[most - self.longest :]
        while len(new) < most and not any(string in self.tokenizer.decode(new) for string in stop):
            best = self.logits(tokens + new)[-1].topk(2)
            new, margin = [*new, int(best.indices[0])], min(margin, float(best.values[0] - best.values[1]))
        return min((self.tokenizer.decode(new, skip_special_tokens=True).split(each)[0] for each in stop), key=len), margin

    @torch.no_grad()
    def logits(self, tokens: list[int]) -> torch.Tensor:
        ids = torch.tensor([[*self.front, *tokens]])
        if self.prompt is None:
            return self.model(ids).logits[0]
        vectors = torch.cat([self.prompt[None], self.model.get_input_embeddings()(ids)], dim=1)
        return self.model(inputs_embeds=vectors, position_ids=self.start + torch.arange(vectors.shape[1])[None]).logits[0]
