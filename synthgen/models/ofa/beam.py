"""Batched beam search with fairseq's scores; optionally in diverse groups (diverse beam search).

Termination follows fairseq. A hypothesis that ends among the best candidates of a step is finished, and a box is
finished when it has as many hypotheses as beams. At the last step, the end token keeps its own probability. (Hugging
Face's `forced_eos_token_id` sets it to 1, which ranks captions differently.)
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
    """Options of the beam search.

    Attributes:
        num_beams: beams per box, and hypotheses returned per box.
        max_length, min_length: tokens before the end token.
        length_penalty: a hypothesis of n tokens (with the end token) scores the sum of its log-probabilities / n **
            length_penalty; values above 1 favour long hypotheses.
        no_repeat_ngram_size: n-grams of this size may occur only once; 0 = no limit.
        num_beam_groups: number of groups that the beams are split into. At each step, a group is penalized for tokens
            (including the end token) that earlier groups chose.
        diversity_penalty: log-probability subtracted per beam of an earlier group that chose the same token. It affects
            the search, not the scores. Vijayakumar et al., "Diverse Beam Search", 2016.
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
    """A finished text.

    Attributes:
        tokens: ids, without `<s>`, with `</s>`.
        score: ranks the hypotheses of a box.
        mean_log_probability: over the tokens including `</s>`; at most 0.
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
    """Generate hypotheses for n boxes in B images: for each box, in order, best first.

    Args:
        network: an OFA.
        image_tokens: of the B images.
        image_indices: for each box, the index of its image.
        prompts: int64 [n, t], ids of the prompt of each box; see `Ofa.encode`.
        config: beams, lengths and penalties.
        chunk_size: boxes per batch, which limits memory.
        padding_mask: bool [n, t], True on padding; None if all prompts have the same length.
        position_bias: a cached bias for these image and prompt sizes.

    Raises:
        ValueError: the arguments do not fit together.
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
    """Search hypotheses for each of n boxes: best first, at most `num_beams`.

    Different groups may find the same text; it is then returned twice.

    Args:
        network: an OFA.
        encoder_output: of the n boxes, from `Ofa.encode`.
        config: beams, lengths and penalties.

    Raises:
        ValueError: more beams than the vocabulary has tokens, or texts too long for the network.
    """
    if 2 * config.num_beams >= network.config.vocab_size:
        raise ValueError(f"{config.num_beams} beams are too many for {network.config.vocab_size} tokens")
    boxes, device = len(encoder_output.states), encoder_output.states.device
    if not boxes:
        return []
    cache = network.init_cache(encoder_output, config.max_length + 1)
    done = _FinishedHypotheses(boxes, config, device)
    alive = torch.arange(boxes, device=device)  # the box of each row
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
        # Dropping a box copies the keys and values of the others; worth it once half of the boxes are finished.
        if 2 * len(left) <= len(alive):
            cache.select_boxes(left)
            alive, tokens, total, parents = alive[left], tokens[left], total[left], parents[left]
        cache.reorder(parents)
    return done.ranked()


def _mask_forbidden_tokens(logp: Tensor, tokens: Tensor, step: int, config: BeamSearchConfig) -> Tensor:
    """Set the log-probabilities [n, beams, vocabulary] of forbidden next tokens to -inf, given tokens [n, beams, t]."""
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
    """One step: record finished hypotheses and select the beams to continue.

    Args:
        logp: float32 [n, beams, vocabulary]; one beam at the first step.
        total: float32 [n, beams], sums of log-probabilities.
        tokens: int64 [n, beams, t], the texts so far; `<s>` first.
        alive: int64 [n], the box of each row.
        finished: receives the hypotheses that end.
        config: beams and groups.

    Returns:
        Parent, token and total of each continued beam; [n, all beams] each.
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
        # Each beam ends at most once, so twice as many candidates always leave enough to continue.
        best = ranked.topk(2 * width).indices
        parent, token, value = best // vocabulary + first, best % vocabulary, sums.gather(1, best)
        ends = (token == EOS) & (value > -torch.inf)
        finished.add(alive, group, ends[:, :width], tokens, parent[:, :width], value[:, :width])
        on = (token == EOS).sort(dim=1, stable=True).indices[:, :width]
        parent, token, value = (x.gather(1, on) for x in (parent, token, value))
        if taken is not None:
            # A finished group chooses no tokens that later groups would have to avoid.
            cost = ((~finished.is_full(group)[alive]) * config.diversity_penalty).to(taken.dtype)[:, None]
            taken.scatter_add_(1, token, cost.expand(-1, width))
            taken[:, EOS] += cost[:, 0] * ends[:, :width].sum(1)
        chosen.append((parent, token, value))
    parents, next_tokens, totals = (torch.cat(parts, dim=1) for parts in zip(*chosen, strict=True))
    return parents, next_tokens, totals


class _FinishedHypotheses:
    """Finished hypotheses, at most beams-per-group for each group; later ones are dropped."""

    def __init__(self, num_boxes: int, config: BeamSearchConfig, device: torch.device) -> None:
        self.config = config
        self.beams_per_group = config.num_beams // config.num_beam_groups
        # The last slot is a dummy for dropped hypotheses.
        shape = (num_boxes, config.num_beam_groups, self.beams_per_group + 1)
        self.tokens = torch.full((*shape, config.max_length + 1), PAD, device=device)
        self.total = torch.zeros(shape, device=device)
        self.length = torch.zeros(shape, dtype=torch.int64, device=device)
        self.count = torch.zeros(shape[:2], dtype=torch.int64, device=device)

    def add(self, alive: Tensor, group: int, ends: Tensor, tokens: Tensor, parent: Tensor, total: Tensor) -> None:
        """Add those of n boxes' candidates that end. All are [n, width], except tokens [n, beams, t], which begin
        with `<s>`.
        """
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
        """Whether all groups of each box are full, or one group: bool [boxes]."""
        whole = self.count == self.beams_per_group
        return whole.all(1) if group is None else whole[:, group]

    def ranked(self) -> list[list[Hypothesis]]:
        """The hypotheses of each box, best first."""
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
