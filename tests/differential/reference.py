"""What a model says, asked for one text at a time: transformers and arithmetic, and nothing of this project."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase


class Reference(NamedTuple):
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    longest: int  # tokens that the model takes behind what stands in front of each text
    front: Sequence[int] = ()  # which is token ids, and behind them vectors [n, E]; the first of all has position `start`
    prompt: torch.Tensor | None = None
    start: int = 0
    members: Sequence["Reference"] = ()  # of an ensemble, or of a pool of which each token sees one
    pool: Sequence[Any] = ()  # what `side_by_side` gives

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
        rows = self.said(tokens[max(0, length - self.longest - 1) : max(first, len(tokens) - 1)])
        pairs = list(zip(rows[len(rows) + first - len(tokens) :], tokens[first:], strict=True))
        return sum(float(row[token]) for row, token in pairs), all(int(row.argmax()) == token for row, token in pairs)

    def written(self, context: str, most: int, stop: Sequence[str]) -> tuple[str, float]:  # and the closest call on the way
        new, margin, stop = list[int](), 1.0, [*stop, self.tokenizer.eos_token]
        tokens = (self.tokens(context) or self.tokens("", bare=True))[most - self.longest :]
        while len(new) < most and not any(string in self.tokenizer.decode(new) for string in stop):
            best = self.said(tokens + new)[-1].topk(2)
            new, margin = [*new, int(best.indices[0])], min(margin, float(best.values[0] - best.values[1]))
        return min((self.tokenizer.decode(new, skip_special_tokens=True).split(each)[0] for each in stop), key=len), margin

    @torch.no_grad()
    def said(self, tokens: list[int]) -> torch.Tensor:  # log-probabilities of what is next
        ids = torch.tensor([[*self.front, *tokens]])
        if self.pool:
            return self.said_by_token(ids)
        if self.members:
            return torch.stack([member.said(tokens) for member in self.members]).mean(0)
        if self.prompt is None:
            return self.model(ids).logits[0].log_softmax(-1)
        text = self.model.get_input_embeddings()(ids[:, len(self.front) :])
        vectors = torch.cat([self.in_front(), text], dim=1)
        places = self.start + torch.arange(vectors.shape[1])[None]
        return self.model(inputs_embeds=vectors, position_ids=places).logits[0, len(self.prompt) :].log_softmax(-1)

    def in_front(self) -> torch.Tensor:
        begin = self.model.get_input_embeddings()(torch.tensor([self.front], dtype=torch.long))
        return torch.cat([begin, self.prompt[None]], dim=1) if self.prompt is not None else begin

    def said_by_token(self, ids: torch.Tensor) -> torch.Tensor:  # no prompt is chosen before a token of the text votes
        own, place = ids[:, len(self.front) :], torch.tensor([[self.members[-1].start + len(self.members[-1].prompt)]])
        rows = [self.model(ids[:, :1], position_ids=place).logits[0]] if self.front else []
        rows += [self.seeing(own, self.votes(own).argmax(0)).logits[0]] if own.numel() else []
        return torch.cat(rows).log_softmax(-1)

    def votes(self, ids: torch.Tensor) -> torch.Tensor:  # [m, T], what each token attends to prompts in the first layer
        weights = self.seeing(ids, None).attentions[0][0].mean(0)
        lengths = [member.in_front().shape[1] for member in self.members]
        parts = weights.split([*lengths, ids.shape[1]], dim=-1)[:-1]
        return torch.stack([part[:, len(self.front) :].mean(-1) for part in parts])

    def torn(self, text: str) -> bool:  # a token attends to two prompts alike, so that rounding decides which it sees
        ids = torch.tensor([self.tokens(text, bare=True)[-self.longest :]])
        return bool(self.pool) and bool(ids.numel()) and bool((self.votes(ids).topk(2, dim=0).values.diff(dim=0) > -1e-6).any())

    @torch.no_grad()
    def side_by_side(self) -> list[Any]:  # keys and values of all members' prompts in each layer
        caches = [DynamicCache() for _ in self.members]
        for cache, member in zip(caches, self.members, strict=True):
            places = member.start + torch.arange(member.in_front().shape[1])[None]
            self.model(inputs_embeds=member.in_front(), position_ids=places, past_key_values=cache)
        layers = zip(*(cache.layers for cache in caches), strict=True)
        return [
            tuple(torch.cat([getattr(each, part) for each in those], -2) for part in ("keys", "values")) for those in layers
        ]

    def seeing(self, ids: torch.Tensor, chosen: torch.Tensor | None) -> Any:  # eager, behind all prompts side by side
        starts = [member.start + torch.arange(member.in_front().shape[1]) for member in self.members]
        end, past = int(starts[-1][-1]) + 1, DynamicCache()
        for number, states in enumerate(self.pool):
            past.update(*states, number)
        rows, columns = end + torch.arange(ids.shape[1]), torch.cat([*starts, end + torch.arange(ids.shape[1])])
        owners = torch.cat([torch.full((len(places),), number) for number, places in enumerate(starts)])
        seen = columns <= rows[:, None]
        if chosen is not None:
            seen[:, : len(owners)] &= owners == chosen[:, None]
        near = rows[:, None] - columns < (getattr(self.model.config, "sliding_window", None) or len(columns) + end)
        full, local = (torch.where(each, 0.0, torch.finfo(torch.float32).min)[None, None] for each in (seen, seen & near))
        is_local = "sliding_attention" in (getattr(self.model.config, "layer_types", None) or ())
        mask = {"full_attention": full, "sliding_attention": local} if is_local else full
        return self.model(ids, past_key_values=past, attention_mask=mask, position_ids=rows[None], output_attentions=True)
