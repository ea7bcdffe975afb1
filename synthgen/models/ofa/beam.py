"""Beam search for many boxes at once, by fairseq's scores; plain, or in groups that differ (diverse beam search).

Ends as fairseq's do: a hypothesis that ends among a step's first candidates is done, a box is when it has as many as
beams, and at the last step an end keeps its own probability rather than being free. (Hugging Face's
`forced_eos_token_id` makes it free, which ranks captions otherwise.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from synthgen.models.ofa.model import EncoderOutput, ImageTokens, Ofa, PositionBias

BOS, PAD, EOS = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class BeamSearchConfig:
    """How to search.

    Attributes:
        num_beams: hypotheses that are followed, and returned.
        max_length, min_length: tokens before the end.
        length_penalty: a hypothesis of n tokens, its end among them, scores the sum of their log-probabilities / n to
            this power; above 1 long ones gain.
        no_repeat_ngram_size: so many tokens in a row occur once only; 0 for no such rule.
        num_beam_groups: the beams are split into so many; those of a group avoid, at each step, what earlier groups
            just chose, be it a token or to end.
        diversity_penalty: what a choice costs for each beam of an earlier group that made it; in units of
            log-probability. It decides what is followed, and is no part of the scores. Vijayakumar et al., "Diverse
            Beam Search", 2016.
    """

    num_beams: int = 5
    max_length: int = 16
    min_length: int = 1
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 3
    num_beam_groups: int = 1
    diversity_penalty: float = 0.5

    def __post_init__(self) -> None:
        if min(self.num_beams, self.num_beam_groups, self.max_length) < 1 or self.num_beams % self.num_beam_groups:
            raise ValueError(
                f"{self.num_beams} beams in {self.num_beam_groups} groups, of at most {self.max_length} tokens, are "
                "no search: "
                "beams are a multiple of groups, and none is below 1"
            )
        if not 0 <= self.min_length <= self.max_length or self.no_repeat_ngram_size < 0:
            raise ValueError(
                f"min_length {self.min_length}, max_length {self.max_length} and no_repeat_ngram "
                f"{self.no_repeat_ngram_size} do not go together"
            )


class Hypothesis(NamedTuple):
    """A text.

    Attributes:
        tokens: ids, without `<s>`, with `</s>`.
        score: what hypotheses of a box are ranked by.
        mean_log_probability: of the tokens, `</s>` among them; at most 0.
    """

    tokens: list[int]
    score: float
    mean_log_probability: float


def generate_hypotheses(
    network: Ofa,
    image_tokens: ImageTokens,
    image_indices: Sequence[int],
    prompts: Tensor,
    config: BeamSearchConfig,
    *,
    chunk_size: int,
    padding_mask: Tensor | None = None,
    position_bias: PositionBias | None = None,
) -> Iterator[list[Hypothesis]]:
    """What the network says of n boxes, each of one of B images: for each in order its hypotheses, best first.

    Args:
        image_tokens, image_indices, prompts, padding_mask: as `Ofa.encode` takes them.
        chunk_size: boxes at a time, which bounds the memory.
        position_bias: of these images and prompts, if they were kept from before.

    Raises:
        ValueError: these do not go together.
    """
    if len(image_indices) != len(prompts) or chunk_size < 1:
        raise ValueError(
            f"{len(image_indices)} owners, {len(prompts)} prompts and chunks of {chunk_size} do not go together"
        )
    if not image_indices:
        return
    position_bias = position_bias or network.compute_position_bias(image_tokens, prompts.shape[1])
    for start in range(0, len(image_indices), chunk_size):
        part = slice(start, start + chunk_size)
        hidden = None if padding_mask is None else padding_mask[part]
        yield from beam_search(
            network, network.encode(image_tokens, image_indices[part], prompts[part], position_bias, hidden), config
        )


@torch.no_grad()
def beam_search(network: Ofa, encoder_output: EncoderOutput, config: BeamSearchConfig) -> list[list[Hypothesis]]:
    """For each of n boxes its hypotheses, best first; at most `beams`.

    Groups may find the same text twice; it is then there twice.

    Raises:
        ValueError: more beams than the vocabulary has tokens for, or texts too long for the network.
    """
    if 2 * config.num_beams >= network.config.vocab_size:
        raise ValueError(f"{config.num_beams} beams are too many for {network.config.vocab_size} tokens")
    boxes, device = len(encoder_output.states), encoder_output.states.device
    if not boxes:
        return []
    cache = network.init_cache(encoder_output, config.max_length + 1)
    done = _FinishedHypotheses(boxes, config, device)
    alive = torch.arange(boxes, device=device)  # which box each row is of
    tokens = torch.full((boxes, 1, 1), BOS, device=device)
    total = torch.zeros(boxes, 1, device=device)
    for step in range(config.max_length + 1):
        logits = network.decode(tokens[:, :, -1:], cache)[:, :, 0]
        logp = _mask_forbidden_tokens(logits.log_softmax(2), tokens, step, config)
        parents, chosen, total = _advance_beams(logp, total, tokens, alive, done, config)
        tokens = torch.cat([tokens.gather(1, parents[:, :, None].expand(-1, -1, step + 1)), chosen[:, :, None]], 2)
        left = (~done.is_full()[alive]).nonzero()[:, 0]
        if not len(left) or step == config.max_length:
            break
        # To drop a box is to copy the others' keys and values: worth it once they are half.
        if 2 * len(left) <= len(alive):
            cache.select_boxes(left)
            alive, tokens, total, parents = alive[left], tokens[left], total[left], parents[left]
        cache.reorder(parents)
    return done.ranked()


def _mask_forbidden_tokens(logp: Tensor, tokens: Tensor, step: int, config: BeamSearchConfig) -> Tensor:
    """The log-probabilities [n, beams, vocabulary] given, -inf now for what must not follow tokens [n, beams, t]."""
    never = -torch.inf
    logp.masked_fill_(logp.isnan(), never)
    logp[..., PAD] = never
    if step < config.min_length:
        logp[..., EOS] = never
    if step >= config.max_length:
        logp[..., :EOS] = never
        logp[..., EOS + 1 :] = never
    size = config.no_repeat_ngram_size
    if 0 < size <= tokens.shape[2]:
        seen = tokens.unfold(2, size, 1)  # [n, beams, windows, size]
        latest = tokens[:, :, None, tokens.shape[2] + 1 - size :]
        again = (seen[..., :-1] == latest).all(3)
        logp.scatter_(2, torch.where(again, seen[..., -1], PAD), never)
    return logp


def _advance_beams(
    logp: Tensor, total: Tensor, tokens: Tensor, alive: Tensor, finished: _FinishedHypotheses, config: BeamSearchConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """One step: note what ends, and choose what goes on.

    Args:
        logp: [n, beams, vocabulary]; at the first step there is one beam.
        total: [n, beams], sums of log-probabilities so far.

    Returns:
        of each beam that goes on its parent, its token and its total; [n, all beams] each.
    """
    beams, vocabulary = logp.shape[1:]
    width = config.num_beams // config.num_beam_groups
    taken = torch.zeros_like(logp[:, 0]) if config.num_beam_groups > 1 else None
    chosen: list[tuple[Tensor, Tensor, Tensor]] = []
    for group in range(config.num_beam_groups):
        first = 0 if beams == 1 else group * width
        own = slice(first, first + min(width, beams))
        sums = (total[:, own, None] + logp[:, own]).flatten(1)
        ranked = sums if taken is None else sums - taken.repeat(1, own.stop - own.start)
        # Each beam ends at most once, so that of twice as many candidates enough go on.
        best = ranked.topk(2 * width).indices
        parent, token, value = best // vocabulary + first, best % vocabulary, sums.gather(1, best)
        ends = (token == EOS) & (value > -torch.inf)
        finished.add(alive, group, ends[:, :width], tokens, parent[:, :width], value[:, :width])
        on = (token == EOS).sort(dim=1, stable=True).indices[:, :width]
        parent, token, value = (x.gather(1, on) for x in (parent, token, value))
        if taken is not None:
            # A group that is done says no more, and nothing that others should avoid.
            cost = ((~finished.is_full(group)[alive]) * config.diversity_penalty).to(taken.dtype)[:, None]
            taken.scatter_add_(1, token, cost.expand(-1, width))
            taken[:, EOS] += cost[:, 0] * ends[:, :width].sum(1)
        chosen.append((parent, token, value))
    parents, next_tokens, totals = (torch.cat(parts, dim=1) for parts in zip(*chosen, strict=True))
    return parents, next_tokens, totals


class _FinishedHypotheses:
    """The hypotheses that have ended, at most so many a group as it has beams; those that come later are not noted."""

    def __init__(self, num_boxes: int, config: BeamSearchConfig, device: torch.device) -> None:
        self.config = config
        self.beams_per_group = config.num_beams // config.num_beam_groups
        room = (num_boxes, config.num_beam_groups, self.beams_per_group + 1)  # the last is for what is not noted
        self.tokens = torch.full((*room, config.max_length + 1), PAD, device=device)
        self.total = torch.zeros(room, device=device)
        self.length = torch.zeros(room, dtype=torch.int64, device=device)
        self.count = torch.zeros(room[:2], dtype=torch.int64, device=device)

    def add(self, alive: Tensor, group: int, ends: Tensor, tokens: Tensor, parent: Tensor, total: Tensor) -> None:
        """Of n boxes' candidates, all [n, width] but tokens [n, beams, t], `<s>` first, those that end."""
        slot = self.count[alive, group][:, None] + ends.cumsum(1) - 1
        slot = torch.where(ends, slot, self.beams_per_group).clamp(max=self.beams_per_group)
        length = tokens.shape[2]
        text = tokens.gather(1, parent[:, :, None].expand(-1, -1, length))[..., 1:]
        row = alive[:, None].expand_as(slot)
        self.tokens[row, group, slot, : length - 1] = text
        self.tokens[row, group, slot, length - 1] = EOS
        self.total[row, group, slot] = total
        self.length[row, group, slot] = length
        self.count[alive, group] = (self.count[alive, group] + ends.sum(1)).clamp(max=self.beams_per_group)

    def is_full(self, group: int | None = None) -> Tensor:
        """Whether each of all boxes needs no more, bool [boxes]; or one of its groups."""
        whole = self.count == self.beams_per_group
        return whole.all(1) if group is None else whole[:, group]

    def ranked(self) -> list[list[Hypothesis]]:
        """For each box, best first."""
        scores = (self.total / self.length.clamp(min=1) ** self.config.length_penalty).tolist()
        means = (self.total / self.length.clamp(min=1)).tolist()
        tokens, lengths, counts = self.tokens.tolist(), self.length.tolist(), self.count.tolist()
        found = []
        for box, of_groups in enumerate(counts):
            own = [
                Hypothesis(
                    tokens[box][group][slot][: lengths[box][group][slot]],
                    scores[box][group][slot],
                    means[box][group][slot],
                )
                for group, count in enumerate(of_groups)
                for slot in range(count)
            ]
            found.append(sorted(own, key=lambda hypothesis: -hypothesis.score))
        return found
