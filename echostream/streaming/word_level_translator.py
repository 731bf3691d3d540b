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

from echostream.decoding.beam_search import search
from echostream.decoding.policy import UNLIMITED, Budget, Evidence, Policy, PolicyState
from echostream.decoding.repetition import MEMORY, repeating
from echostream.models.echostream_model import PADDING, EchoStreamModel
from echostream.models.unit_decoder import UnitDecoderState
from echostream.modules.ctc import CTCReader
from echostream.modules.state import State
from echostream.modules.transformer import TransformerState
from echostream.streaming.source_span import Heard
from echostream.text import WORD_MARK, pieces_to_text

END = 2  # fairseq's </s>: starts and ends a target sentence
NEVER = (0, PADDING, 3)  # <s>, padding and <unk> are never spoken
MAX_TOKENS_PER_FRAME = 0.5  # no language is faster than 12.5 subwords a second; stops a decoder that loops
SPARE_TOKENS = 8
# Chosen on 120 dev sentences, ten on end (MODEL_CARD, Long speech); more would part less, and later.
OVERDUE_TOKENS = 6  # read by the ST CTC beyond the decoder's end, which show that another sentence has begun
SLACK_TOKENS = 5  # the pause between the two may lie that many before, for the ST CTC reads behind the speaker


@dataclass(frozen=True)
class TargetWord:
    """A committed word and its units. ``joined``: it goes on from the word before, without a space."""

    text: str
    units: tuple[int, ...]
    joined: bool = False


@dataclass
class SentenceState(State):
    """What is remembered of the current sentence; a new sentence starts a new one."""

    heard: Heard  # lately
    mt: TransformerState
    unit: UnitDecoderState
    num_frames: int = 0
    source_words: int = 0
    source_tokens: int = 0
    target_tokens: int = 0
    policy: PolicyState = field(default_factory=PolicyState)
    written: tuple[int, ...] = (END,)  # the last committed tokens
    tokens: int = 0  # committed
    words: int = 0  # committed
    ended: bool = False  # the end is committed
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

    Attributes:
        overdue_tokens: how many the ST CTC reads beyond the decoder's end before that end is taken and the next
            sentence begins; ``math.inf`` leaves sentences to silence and punctuation.
    """

    def __init__(self, model: EchoStreamModel, symbols: Sequence[str], beam: int = 1) -> None:
        self.model = model
        self.beam = beam
        self.overdue_tokens: float = OVERDUE_TOKENS
        self.symbols = list(symbols)
        self.begins = [symbol.startswith(WORD_MARK) for symbol in self.symbols]
        forbidden = torch.zeros(len(self.symbols))
        forbidden[list(NEVER)] = float("-inf")
        self.forbidden = forbidden.to(next(model.parameters()).device)

    def init_state(self) -> SentenceState:
        model = self.model
        frames = model.mt_decoder.embedding.weight.new_zeros(1, 0, model.cfg.encoder_dim)
        nothing = Heard(frames, 0, [], [], [])
        return SentenceState(nothing, model.mt_decoder.init_state(), model.unit_decoder.init_state())

    def listen(self, heard: Heard, state: SentenceState) -> None:
        """Take in what a segment brought."""
        state.heard = state.heard.joined(heard, self.model.mt_decoder.window_frames)
        state.num_frames += heard.frames.size(1)
        state.source_words += len(heard.words)
        state.source_tokens += len(heard.source_tokens)
        state.target_tokens += len(heard.target_tokens)

    def decide(self, policy: Policy, state: SentenceState) -> Budget | None:
        """Ask the policy, once a segment."""
        evidence = Evidence(state.num_frames, state.source_words, state.source_tokens, state.target_tokens)
        budget, state.policy = policy(evidence, state.policy)
        return budget

    def part(self, place: int, state: SentenceState) -> SentenceState | None:
        """What this sentence has heard from frame ``place`` on, taken out of it as the beginning of the next sentence.

        None if the sentence began later.
        """
        if place <= state.heard.end - state.num_frames:
            return None
        following = self.init_state()
        self.listen(state.heard.since(place), following)
        state.heard = state.heard.until(place)
        state.num_frames -= following.num_frames
        state.source_words -= following.source_words
        state.source_tokens -= following.source_tokens
        state.target_tokens -= following.target_tokens
        return following

    def overdue_sentence(self, state: SentenceState) -> SentenceState | None:
        """The sentence that has begun behind this one, with all that was heard of it; None if there is no sign of one.

        The MT decoder translates one sentence, and ends it however many follow. That there is another one shows in the
        ST CTC, which has then read clearly more than was written; where it begins, in the longest pause between source
        words since.
        """
        place = self._parting(state.tokens, state)
        return self.part(place, state) if place is not None else None

    def _parting(self, written: int, state: SentenceState) -> int | None:
        """Where the sentence behind this one begins, if this one has ``written`` tokens and no more."""
        unwritten = state.target_tokens - written
        if unwritten < self.overdue_tokens:
            return None
        places = state.heard.target_tokens
        last = len(places) - unwritten - SLACK_TOKENS
        return state.heard.longest_pause(places[last] if last >= 0 else state.heard.end - state.num_frames)

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
        decoder_state, previous = state.mt, state.written[-1]
        limit = self._limit(state)

        def commit(before: TransformerState) -> None:
            words.append(pending.copy())
            states.append(torch.cat(pending_states, dim=1))
            state.mt, state.written = before, (*state.written, *pending)[-MEMORY:]
            state.tokens += len(pending)
            state.words += 1
            pending.clear()
            pending_states.clear()

        while state.tokens + len(pending) < limit:
            if not budget.whole_words and not budget.allows(state.tokens + len(pending) + 1, state.words + 1):
                break  # no token is needed to show that a word is whole
            hidden, logits, next_state = self.model.mt_decoder(
                torch.tensor([[previous]], device=state.heard.frames.device), state.heard.frames, state=decoder_state
            )
            scores = logits[0, -1] + self.forbidden
            scores[list(repeating((*state.written, *pending)))] = float("-inf")
            if not budget.ends:
                scores[END] = float("-inf")
            token = int(scores.argmax())
            if pending and self._ends_word(token, budget):
                commit(decoder_state)
            if token == END and not is_last and self._parting(state.tokens, state) is None:
                break
            if token != END and not budget.allows(state.tokens + len(pending) + 1, state.words + 1):
                break
            pending.append(token)
            pending_states.append(self.model.text_states(hidden, torch.tensor([[token]], device=hidden.device)))
            decoder_state, previous = next_state, token
            if token == END:
                state.ended = True
                break
        if pending and (state.ended or is_last or not budget.whole_words):
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
            self.model.mt_decoder, state.written, state.heard.frames, state.mt, self.beam, room, mask, is_closed
        )
        words = self._words(found, budget)
        parts = found[-1] == END and self._parting(state.tokens + len(found) - 1, state) is not None
        state.ended = found[-1] == END and (is_last or parts)
        if is_closed(found) and not is_last and not parts:
            words = self._words(found[:-1], budget) if self._ends_word(found[-1], budget) else words[:-1]
        elif not is_last and not parts and budget.whole_words:
            words = words[:-1]  # stopped by the limit, perhaps inside a word
        tokens = [token for word in words for token in word]
        if not tokens:
            return [], []
        previous = torch.tensor([[state.written[-1], *tokens[:-1]]], device=state.heard.frames.device)
        hidden, _, state.mt = self.model.mt_decoder(previous, state.heard.frames, state=state.mt)
        text = self.model.text_states(hidden, torch.tensor([tokens], device=hidden.device))
        state.written = (*state.written, *tokens)[-MEMORY:]
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
