"""From encoder frames to units, word by word: policy, MT decoder (greedy or beam) and unit decoder in a row.

Words are committed whole and never taken back. Whatever the MT decoder guessed beyond the last committed word is
dropped exactly: its state is an immutable value, and the one kept is that of the last committed token's predecessor,
so that the next WRITE reads that token again, with the frames that have come since. These are the states that
training's mask gives (``visible_frames_from_policy``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from echostream.models.beam_search import search
from echostream.models.echostream import PADDING, EchoStreamModel
from echostream.models.word_boundary import WORD_MARK, pieces_to_text
from echostream.modules.ctc import CTCReader
from echostream.modules.policy import UNLIMITED, Budget, Evidence, Policy, PolicyState
from echostream.modules.state import State
from echostream.modules.transformer import TransformerState
from echostream.modules.unit_decoder import UnitDecoderState

END = 2  # fairseq's </s>: starts and ends a target sentence
NEVER = (0, PADDING, 3)  # <s>, padding and <unk> are never spoken
MAX_TOKENS_PER_FRAME = 0.5  # no language is faster than 12.5 subwords a second; stops a decoder that loops
SPARE_TOKENS = 8


@dataclass(frozen=True)
class TargetWord:
    """A committed word and its units. ``joined``: it goes on from the word before, without a space."""

    text: str
    units: tuple[int, ...]
    joined: bool = False


@dataclass
class SentenceState(State):
    """What is remembered of the current sentence; a new sentence starts a new one."""

    frames: Tensor  # (1, n, D) the latest encoder frames, for cross-attention
    mt: TransformerState
    unit: UnitDecoderState
    num_frames: int = 0
    source_words: int = 0
    source_tokens: int = 0
    target_tokens: int = 0
    policy: PolicyState = field(default_factory=PolicyState)
    last_token: int = END
    tokens: int = 0  # committed
    words: int = 0  # committed
    unit_reader: CTCReader = field(default_factory=CTCReader)

    @property
    def is_silent(self) -> bool:
        """Nothing was heard and nothing written."""
        return not (self.source_tokens or self.target_tokens or self.tokens)


class WordLevelTranslator:
    """Text side of the runtime over a model's decoders.

    Args:
        model: the trained model.
        symbols: the target dictionary.
        beam: hypotheses kept over the uncommitted part; 1 is greedy.
    """

    def __init__(self, model: EchoStreamModel, symbols: Sequence[str], beam: int = 1) -> None:
        self.model = model
        self.beam = beam
        self.symbols = list(symbols)
        self.begins = [symbol.startswith(WORD_MARK) for symbol in self.symbols]
        forbidden = torch.zeros(len(self.symbols))
        forbidden[list(NEVER)] = float("-inf")
        self.forbidden = forbidden.to(next(model.parameters()).device)

    def init_state(self) -> SentenceState:
        model = self.model
        return SentenceState(
            frames=model.mt_decoder.embedding.weight.new_zeros(1, 0, model.cfg.encoder_dim),
            mt=model.mt_decoder.init_state(),
            unit=model.unit_decoder.init_state(),
        )

    def listen(
        self, frames: Tensor, source_words: int, source_tokens: int, target_tokens: int, state: SentenceState
    ) -> None:
        """Take in what a segment brought: frames ``(1, n, D)`` and counts of new words and symbols."""
        window = self.model.mt_decoder.window_frames
        state.frames = torch.cat([state.frames, frames], dim=1)[:, -window:].clone()
        state.num_frames += frames.size(1)
        state.source_words += source_words
        state.source_tokens += source_tokens
        state.target_tokens += target_tokens

    def decide(self, policy: Policy, state: SentenceState) -> Budget | None:
        """Ask the policy, once a segment."""
        evidence = Evidence(state.num_frames, state.source_words, state.source_tokens, state.target_tokens)
        budget, state.policy = policy(evidence, state.policy)
        return budget

    def write(
        self, budget: Budget, state: SentenceState, is_last: bool = False, with_units: bool = True
    ) -> list[TargetWord]:
        """Extend the translation as far as ``budget`` allows; up to its end if the sentence ends here."""
        extend = self._extend if self.beam == 1 else self._extend_by_beam
        words, states = extend(UNLIMITED if is_last else budget, state, is_last)
        units = self._speak(words, states, state) if with_units else [() for _ in words]
        return [
            TargetWord(pieces_to_text(self._pieces(word)).strip(), spoken, self._joined(word))
            for word, spoken in zip(words, units, strict=True)
        ]

    def _pieces(self, tokens: list[int]) -> list[str]:
        return [self.symbols[token] for token in tokens if token != END]

    def _joined(self, tokens: list[int]) -> bool:
        return tokens[0] != END and not self.begins[tokens[0]]

    def _extend(self, budget: Budget, state: SentenceState, is_last: bool) -> tuple[list[list[int]], list[Tensor]]:
        """Greedy search for whole words: their tokens, and the text states ``(1, n, mt_dim)`` of each.

        The end of the sentence, if it comes, is the last word.
        """
        words: list[list[int]] = []
        states: list[Tensor] = []
        pending: list[int] = []
        pending_states: list[Tensor] = []
        decoder_state, previous = state.mt, state.last_token
        limit = self._limit(state)

        def commit(before: TransformerState) -> None:
            words.append(pending.copy())
            states.append(torch.cat(pending_states, dim=1))
            state.mt, state.last_token = before, pending[-1]
            state.tokens += len(pending)
            state.words += 1
            pending.clear()
            pending_states.clear()

        while state.tokens + len(pending) < limit:
            if not budget.whole_words and not budget.allows(state.tokens + len(pending) + 1, state.words + 1):
                break  # no token is needed to show that a word is whole
            hidden, logits, next_state = self.model.mt_decoder(
                torch.tensor([[previous]], device=state.frames.device), state.frames, state=decoder_state
            )
            scores = logits[0, -1] + self.forbidden
            if not budget.ends:
                scores[END] = float("-inf")
            token = int(scores.argmax())
            if pending and self._ends_word(token, budget):
                commit(decoder_state)
            if token == END and not is_last:
                break
            if token != END and not budget.allows(state.tokens + len(pending) + 1, state.words + 1):
                break
            pending.append(token)
            pending_states.append(self.model.text_states(hidden, torch.tensor([[token]], device=hidden.device)))
            decoder_state, previous = next_state, token
            if token == END:
                break
        if pending and (is_last or not budget.whole_words):
            commit(decoder_state)
        return words, states

    def _limit(self, state: SentenceState) -> int:
        """Most tokens that the sentence may have by now."""
        return SPARE_TOKENS + int(MAX_TOKENS_PER_FRAME * state.num_frames)

    def _ends_word(self, token: int, budget: Budget) -> bool:
        """Whether ``token`` shows that what comes before it is whole."""
        return token == END or self.begins[token] or not budget.whole_words

    def _words(self, tokens: Sequence[int], budget: Budget) -> list[list[int]]:
        """Tokens by word, as far as the policy knows words; the end symbol is a word of its own."""
        words: list[list[int]] = []
        for token in tokens:
            if not words or self._ends_word(token, budget):
                words.append([])
            words[-1].append(token)
        return words

    def _extend_by_beam(
        self, budget: Budget, state: SentenceState, is_last: bool
    ) -> tuple[list[list[int]], list[Tensor]]:
        """:meth:`_extend` by beam search, whose tokens are then read in one pass for their states."""

        def is_closed(tokens: tuple[int, ...]) -> bool:
            if tokens[-1] == END:
                return True
            return not budget.allows(state.tokens + len(tokens), state.words + len(self._words(tokens, budget)))

        room = self._limit(state) - state.tokens
        if room < 1:
            return [], []
        mask = self.forbidden
        if not budget.ends:
            mask = mask.clone()
            mask[END] = float("-inf")
        found = search(
            self.model.mt_decoder, state.last_token, state.frames, state.mt, self.beam, room, mask, is_closed
        )
        words = self._words(found, budget)
        if is_closed(found) and not is_last:
            words = self._words(found[:-1], budget) if self._ends_word(found[-1], budget) else words[:-1]
        elif not is_last and budget.whole_words:
            words = words[:-1]  # stopped by the limit, perhaps inside a word
        tokens = [token for word in words for token in word]
        if not tokens:
            return [], []
        previous = torch.tensor([[state.last_token, *tokens[:-1]]], device=state.frames.device)
        hidden, _, state.mt = self.model.mt_decoder(previous, state.frames, state=state.mt)
        text = self.model.text_states(hidden, torch.tensor([tokens], device=hidden.device))
        state.last_token = tokens[-1]
        state.tokens += len(tokens)
        state.words += len(words)
        return words, list(text.split([len(word) for word in words], dim=1))

    def _speak(self, words: list[list[int]], states: list[Tensor], state: SentenceState) -> list[tuple[int, ...]]:
        """Units of committed words, repeats across words merged."""
        if not words:
            return []
        text = torch.cat(states, dim=1)
        word_ids = torch.tensor([[index for index, word in enumerate(words) for _ in word]], device=text.device)
        logits, state.unit = self.model.unit_decoder(text, word_ids, state.unit)
        labels = logits[0].argmax(dim=-1).tolist()
        spoken, start = [], 0
        for word in words:
            end = start + len(word) * self.model.unit_decoder.frames_per_token
            spoken.append(tuple(symbol - 1 for _, symbol in state.unit_reader.read(labels[start:end])))
            start = end
        return spoken
