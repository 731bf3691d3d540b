"""From encoder frames to units, word by word: policy, MT decoder (greedy or beam) and unit decoder in a row.

Words are committed whole and never taken back. Whatever the MT decoder guessed beyond the last committed word is
dropped exactly: its state is an immutable value, and the state that is kept is the one before the last committed token,
so that the next WRITE reads that token again together with the frames that have come since. These are the states that
training's mask gives (:func:`echostream.decoding.policy.visible_frames_from_policy`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor

from echostream.constants import FRAME_MS
from echostream.decoding.beam_search import Hypothesis, search
from echostream.decoding.confidence import Confidence, log_probs_of
from echostream.decoding.joint_search import (
    LanguageReading,
    Reading,
    Rereading,
    Search,
    TextAnswer,
    UnitAnswer,
    UnitReading,
    decoder_passes,
    search_together,
)
from echostream.decoding.policy import Budget, Evidence, Policy, PolicyState, last_budget
from echostream.decoding.repetition import HEARD_MEMORY, MEMORY, heard_repetition, repeating
from echostream.decoding.subwords import SubwordError, SubwordSplitter
from echostream.decoding.target_tokens import END, forbidden_tokens, token_limit
from echostream.models.echostream_model import EchoStreamModel
from echostream.models.unit_decoder import UnitDecoderState
from echostream.modules.ctc import CTCReader
from echostream.modules.state import State
from echostream.modules.transformer import TransformerState
from echostream.streaming.source_span import SourceSpan
from echostream.text import WORD_MARK, pieces_to_text

# Chosen on 120 dev sentences, ten on end (docs/results.md, Long speech); larger values would split less, and later.
OVERDUE_TOKENS = 6  # read by the ST CTC beyond the decoder's end, which show that another sentence has started
LEAD_FRAMES = 25  # before its first evidence, with which a sentence begins to a decoder that counts places: 1 s
SLACK_TOKENS = 5  # the pause between the two may lie that many tokens earlier, since the ST CTC lags behind the speaker
ASKED_FIRST_MS = 2000  # of a sentence, from which on its language is asked before anything is searched for


@dataclass(frozen=True)
class WrittenWord:
    """A committed word before it is spelt and spoken.

    Attributes:
        tokens: of the target dictionary; the end symbol is a word of its own.
        text_states: ``(1, n, mt_dim)``, what the unit decoder reads.
        log_probs: of the tokens when they were committed, in nats.
    """

    tokens: list[int]
    text_states: Tensor
    log_probs: list[float]


Extension = tuple[list[WrittenWord], "SentenceState"]


@dataclass(frozen=True)
class TargetWord:
    """A committed word and its units.

    ``joined``: it continues the word before, without a space. ``confidence``: the probability that it belongs there;
    words that differ in nothing else are equal, for it depends on rounding.
    """

    text: str
    units: tuple[int, ...]
    joined: bool = False
    confidence: float = field(default=1.0, compare=False)


@dataclass
class SentenceState(State):
    """What is remembered of the current sentence; a new sentence starts a new one.

    Attributes:
        span: the latest frames of the sentence and the evidence in them.
        mt, unit: states of the decoders.
        num_frames, source_words, source_tokens, target_tokens, expected_tokens: evidence since the sentence started.
        policy: of the policy.
        written: the last committed tokens, of this sentence and those before.
        heard: the last source words of the sentences before, as text.
        begins: frame of the first evidence, from the stream's start; None: there is none yet.
        tokens, words: how many are committed.
        ended: the end of the sentence is committed.
        in_language: it was found to be in the source language.
        unit_reader: reads the unit decoder's CTC.
    """

    span: SourceSpan
    mt: TransformerState
    unit: UnitDecoderState
    num_frames: int = 0
    source_words: int = 0
    source_tokens: int = 0
    target_tokens: int = 0
    expected_tokens: int = 0
    policy: PolicyState = field(default_factory=PolicyState)
    written: tuple[int, ...] = (END,)
    heard: str = ""
    begins: int | None = None
    tokens: int = 0
    words: int = 0
    ended: bool = False
    in_language: bool = False
    unit_reader: CTCReader = field(default_factory=CTCReader)

    @property
    def is_silent(self) -> bool:
        """Nothing was recognised and nothing written."""
        return not (self.source_tokens or self.target_tokens or self.tokens)

    @property
    def first_frame(self) -> int:
        """Where the sentence starts, in frames from the stream's start."""
        return self.span.end - self.num_frames

    def attended(self) -> tuple[Tensor, int]:
        """Frames of the sentence that a decoder which counts places attends to, and the place of the first of them.

        However long nobody spoke before it, it begins shortly before its first evidence.
        """
        frames = self.span.frames
        first = self.num_frames - frames.size(1)
        if self.begins is not None:
            first -= max(0, self.begins - LEAD_FRAMES - self.first_frame)
        return frames[:, max(0, -first) :], max(0, first)

    @property
    def heard_words(self) -> list[str]:
        """The last source words, of this sentence and those before."""
        return (self.heard + "".join(text for _, text in self.span.heard)).split()

    def followed_by(self, sentence: SentenceState) -> SentenceState:
        """The fresh ``sentence`` that comes after this one, with what a repetition is told by."""
        said = tuple(token for token in self.written if token != END)
        heard = "".join(f" {word}" for word in self.heard_words[-HEARD_MEMORY:])
        return replace(sentence, written=(*said, END)[-MEMORY:], heard=heard)

    def committed(self, tokens: Sequence[int], num_words: int, mt: TransformerState) -> SentenceState:
        """The state after a commit; ``mt`` is the decoder's state before the last of ``tokens``."""
        return replace(
            self,
            mt=mt,
            written=(*self.written, *tokens)[-MEMORY:],
            tokens=self.tokens + len(tokens),
            words=self.words + num_words,
        )


class WordLevelTranslator:
    """Writes the translation of a sentence word by word, with a model's decoders.

    Args:
        model: the trained model.
        symbols: the target dictionary.
        beam: hypotheses kept over the uncommitted tokens; 1 is greedy.
        confidence: what the decoder's probabilities mean.
        overdue_tokens: how many tokens the ST CTC reads beyond the decoder's end before that end is committed and the
            next sentence starts; with ``math.inf`` only silence and punctuation end sentences.
        least_language: nothing is written of a sentence as long as what was heard of it is in the source language with
            a probability of less than that; 0: it isn't asked.

    Raises:
        ValueError: ``least_language`` of a model that can't tell languages, or out of range.
    """

    def __init__(
        self,
        model: EchoStreamModel,
        symbols: Sequence[str],
        beam: int = 1,
        confidence: Confidence | None = None,
        overdue_tokens: float = OVERDUE_TOKENS,
        least_language: float = 0.0,
    ) -> None:
        if not 0 <= least_language < 1:
            raise ValueError(f"least_language must be at least 0 and below 1, got {least_language}")
        languages = model.mt_decoder.languages
        if least_language and (languages is None or not languages.any()):
            raise ValueError(
                "least_language needs a model that tells languages, as those do that start from Whisper's text decoder "
                "(mt_languages): leave it at 0"
            )
        self.model = model
        self.beam = beam
        self.confidence = confidence or Confidence()
        self.overdue_tokens = overdue_tokens
        self.least_language = least_language
        self.symbols = list(symbols)
        # The unit decoder learned how words sound from these; the text decoder may know further ones.
        self.spoken_symbols = self.symbols[: len(self.symbols) - model.cfg.mt_further_tokens]
        self.splitter = SubwordSplitter(self.spoken_symbols)
        self.starts_word = [symbol.startswith(WORD_MARK) for symbol in self.symbols]
        self.forbidden = forbidden_tokens(len(self.symbols), next(model.parameters()).device)

    def init_state(self) -> SentenceState:
        """The state of a fresh sentence."""
        model = self.model
        frames = model.mt_decoder.embedding.weight.new_zeros(1, 0, model.cfg.encoder_dim)
        empty = SourceSpan(frames, 0, [], [], [])
        return SentenceState(empty, self._after_prompt, model.unit_decoder.init_state())

    @cached_property
    def _after_prompt(self) -> TransformerState:
        """What the MT decoder starts every sentence from: to read its prompt takes as long as a word."""
        return self.model.mt_decoder.init_state()

    def add_evidence(self, span: SourceSpan, state: SentenceState) -> SentenceState:
        """Take in what a segment brought."""
        places = [*span.source_tokens[:1], *span.target_tokens[:1]]
        return replace(
            state,
            span=state.span.extended(span, self.model.mt_decoder.window_frames),
            begins=min(places, default=None) if state.begins is None else state.begins,
            num_frames=state.num_frames + span.frames.size(1),
            source_words=state.source_words + len(span.words),
            source_tokens=state.source_tokens + len(span.source_tokens),
            target_tokens=state.target_tokens + len(span.target_tokens),
            expected_tokens=state.expected_tokens + len(span.expected_tokens),
        )

    def _attended(self, state: SentenceState) -> tuple[Tensor, int]:
        """Frames that the MT decoder attends to, and the place of the first of them."""
        return state.attended() if self.model.cfg.mt_places else (state.span.frames, 0)

    def decide(self, policy: Policy, state: SentenceState) -> tuple[Budget | None, SentenceState]:
        """Ask the policy, once a segment: how much may be written, or None to READ on."""
        budget, policy_state = policy(self._evidence(state), state.policy)
        return budget, replace(state, policy=policy_state)

    def decide_at_end(self, policy: Policy, state: SentenceState) -> Budget:
        """Ask the policy at the end of the sentence: how much may be written of what is left."""
        return last_budget(policy, self._evidence(state))

    def _evidence(self, state: SentenceState) -> Evidence:
        policy_frames = state.num_frames * self.model.frame_ms // FRAME_MS
        counts = state.source_words, state.source_tokens, state.target_tokens, state.expected_tokens
        return Evidence(policy_frames, *counts)

    def split(self, frame: int, state: SentenceState) -> tuple[SentenceState, SentenceState | None]:
        """Cut the sentence at ``frame``: what came before it, and the sentence that starts there.

        The second is None if the sentence itself started later than ``frame``.
        """
        if frame <= state.first_frame:
            return state, None
        following = self.add_evidence(state.span.since(frame), self.init_state())
        before = replace(
            state,
            span=state.span.before(frame),
            num_frames=state.num_frames - following.num_frames,
            source_words=state.source_words - following.source_words,
            source_tokens=state.source_tokens - following.source_tokens,
            target_tokens=state.target_tokens - following.target_tokens,
            expected_tokens=state.expected_tokens - following.expected_tokens,
        )
        return before, following

    def split_overdue(self, state: SentenceState) -> tuple[SentenceState, SentenceState | None]:
        """Cut off the sentence that has started behind this one; None if there is no sign of one.

        The MT decoder translates one sentence and ends it, however many follow. That there is another one shows in the
        ST CTC, which has then read clearly more than was written. It starts in the longest pause between source words
        since then, and is in the language of this one. Of a sentence in another language nothing is left to be said.
        """
        frame = self._next_sentence(state.tokens, state)
        if frame is None or (self.least_language and not state.in_language):
            return state, None
        state, following = self.split(frame, state)
        return state, following and replace(following, in_language=state.in_language)

    def _next_sentence(self, written: int, state: SentenceState) -> int | None:
        """The frame at which another sentence starts, if this one has ``written`` tokens and no more; None: nowhere."""
        unwritten = state.target_tokens - written
        if unwritten < self.overdue_tokens:
            return None
        places = state.span.target_tokens
        last = len(places) - unwritten - SLACK_TOKENS
        return state.span.longest_pause(places[last] if last >= 0 else state.first_frame)

    def translate_word(
        self, budget: Budget, state: SentenceState, is_last: bool = False, with_units: bool = True
    ) -> Search[tuple[list[TargetWord], SentenceState]]:
        """Write the words that a finished source word allows.

        It is a search, to be carried out by :func:`search_together` alone or with those of other streams. As long as
        the sentence is unlikely to be in the source language nothing is written of it, and what it has heard is kept
        as far as half of the decoder's window.

        Args:
            budget: of the policy.
            state: of the sentence.
            is_last: the sentence ends here: it is written to its end, as far as the budget goes.
            with_units: run the unit decoder as well.

        Returns:
            the words that are committed now, none or several, and the next state.
        """
        # Of a short piece it is asked when there are words: it may sound like anything. Of a longer one it is asked
        # first, for a search of all that is withheld takes longer with every segment.
        if not state.in_language and state.num_frames * self.model.frame_ms >= ASKED_FIRST_MS:
            if not (yield from self._is_in_language(state)):
                return [], self._without_what_is_long_past(state)
            state = replace(state, in_language=True)
        extend = self._extend if self.beam == 1 else self._extend_by_beam
        words, following = yield from extend(budget, state, is_last)
        if words and not state.in_language:
            if not (yield from self._is_in_language(state)):
                return [], self._without_what_is_long_past(state)
            following = replace(following, in_language=True)
        return (yield from self._target_words(words, state, following, with_units))

    def _is_in_language(self, state: SentenceState) -> Search[bool]:
        """Whether what was heard of the sentence may be in the source language."""
        if not self.least_language:
            return True
        probability: float = yield LanguageReading(*self._attended(state))
        return probability >= self.least_language

    def _without_what_is_long_past(self, state: SentenceState) -> SentenceState:
        """A withheld sentence that has outgrown the decoder's window begins anew in the middle of it.

        So its places, and the evidence for the policy, are those of what could still be written.
        """
        window = self.model.mt_decoder.window_frames
        if state.num_frames <= window:
            return state
        _, recent = self.split(state.span.end - window // 2, state)
        return state.followed_by(recent) if recent is not None else state

    def write_given(self, words: list[list[int]], state: SentenceState) -> tuple[list[TargetWord], SentenceState]:
        """Commit given words, with their units, instead of such as are decoded.

        Args:
            words: tokens of each word; the end symbol is a word of its own.
            state: of the sentence.
        """
        if not words:
            return [], state
        return search_together([self._writing_given(words, state)], decoder_passes(self.model))[0]

    def _writing_given(
        self, words: list[list[int]], state: SentenceState
    ) -> Search[tuple[list[TargetWord], SentenceState]]:
        read, following = yield from self._read(words, state)
        return (yield from self._target_words(read, state, following, with_units=True))

    def _target_words(
        self, words: list[WrittenWord], before: SentenceState, state: SentenceState, with_units: bool
    ) -> Search[tuple[list[TargetWord], SentenceState]]:
        """Words with their text and units, and the next state; ``before`` is the one that they were written from."""
        units: list[tuple[int, ...]] = [() for _ in words]
        if with_units and words:
            spelt = yield from self._spelt(words, before)
            units, state = yield from self._speak(spelt, state)
        return [
            TargetWord(
                pieces_to_text(self._pieces(word.tokens)).strip(),
                spoken,
                self._joined(word.tokens),
                self.confidence.of(word.log_probs),
            )
            for word, spoken in zip(words, units, strict=True)
        ], state

    def _pieces(self, tokens: list[int]) -> list[str]:
        return [self.symbols[token] for token in tokens if token != END]

    def _joined(self, tokens: list[int]) -> bool:
        return tokens[0] != END and not self.starts_word[tokens[0]]

    def _extend(self, budget: Budget, state: SentenceState, is_last: bool) -> Search[Extension]:
        """Greedy search for whole words, and the next state. The end of the sentence, if it comes, is the last word."""
        words: list[WrittenWord] = []
        pending: list[int] = []
        pending_states: list[Tensor] = []
        pending_log_probs: list[float] = []
        limit = token_limit(state.num_frames, self.model.frame_ms)
        heard = heard_repetition(state.heard_words)

        def adjust(logits: Tensor) -> Tensor:
            scores = logits + self.forbidden
            scores[0, list(repeating((*state.written, *pending), self.starts_word, heard))] = float("-inf")
            if not budget.ends:
                scores[0, END] = float("-inf")
            return scores

        def commit(mt: TransformerState) -> SentenceState:
            words.append(WrittenWord(pending.copy(), torch.cat(pending_states, dim=1), pending_log_probs.copy()))
            following = state.committed(pending, 1, mt)
            pending.clear()
            pending_states.clear()
            pending_log_probs.clear()
            return following

        is_cut = False  # by the budget, perhaps inside a word
        mt = after = state.mt  # before the last token, and before the one that is read next
        token, (frames, first) = state.written[-1], self._attended(state)
        limit_behind = self._frames_behind(budget)
        while state.tokens + len(pending) < limit:
            if not budget.whole_words and not budget.allows(state.tokens + len(pending) + 1, state.words + 1):
                break  # no token is needed to show that a word is whole
            answer: TextAnswer = yield Reading([[token]], frames, after, first, limit_behind is not None)
            after, logits = answer.state, answer.logits[:, -1]
            best = adjust(logits).argmax(dim=-1)
            token = int(best)
            if pending and self._ends_word(token, budget):
                state = commit(mt)
            if token == END and not is_last and self._next_sentence(state.tokens, state) is None:
                break
            is_late = limit_behind is not None and answer.frames_behind[0] < limit_behind
            if token != END and (is_late or not budget.allows(state.tokens + len(pending) + 1, state.words + 1)):
                is_cut = True
                break
            pending.append(token)
            pending_states.append(self.model.text_states(answer.hidden, best[:, None]))
            pending_log_probs += log_probs_of(logits, [token])
            mt = after
            if token == END:
                state = replace(state, ended=True)
                break
        if pending and (state.ended or (is_last and not is_cut) or not budget.whole_words):
            state = commit(mt)
        return words, state

    def _frames_behind(self, budget: Budget) -> int | None:
        """How many of the model's frames have to follow the one that a token attends to; None: no matter how many."""
        if budget.frames_behind is None:
            return None
        return -(-budget.frames_behind * FRAME_MS // self.model.frame_ms)

    def _ends_word(self, token: int, budget: Budget) -> bool:
        """Whether ``token`` shows that the word before it is whole."""
        return token == END or self.starts_word[token] or not budget.whole_words

    def _words(self, tokens: Sequence[int], budget: Budget) -> list[list[int]]:
        """Tokens by word, as far as the policy knows words; the end symbol is a word of its own."""
        words: list[list[int]] = []
        for token in tokens:
            if not words or self._ends_word(token, budget):
                words.append([])
            words[-1].append(token)
        return words

    def _extend_by_beam(self, budget: Budget, state: SentenceState, is_last: bool) -> Search[Extension]:
        """:meth:`_extend` by beam search, whose tokens are then read in one pass for their states."""
        heard = heard_repetition(state.heard_words)
        limit_behind = self._frames_behind(budget)

        def is_closed(hypothesis: Hypothesis) -> bool:
            tokens, behind = hypothesis.tokens, hypothesis.frames_behind
            if tokens[-1] == END or (limit_behind is not None and behind is not None and behind < limit_behind):
                return True
            return not budget.allows(state.tokens + len(tokens), state.words + len(self._words(tokens, budget)))

        room = token_limit(state.num_frames, self.model.frame_ms) - state.tokens
        if room < 1:
            return [], state
        mask = self.forbidden
        if not budget.ends:
            mask = mask.clone()
            mask[END] = float("-inf")

        def repeated(tokens: tuple[int, ...]) -> set[int]:
            return repeating((*state.written, *tokens), self.starts_word, heard)

        frames, first = self._attended(state)
        hypotheses = yield from search(
            state.written[-1],
            frames,
            state.mt,
            self.beam,
            room,
            mask,
            is_closed,
            repeated,
            first=first,
            aligns=limit_behind is not None,
        )
        found = hypotheses[0].tokens
        words = self._words(found, budget)
        splits = found[-1] == END and self._next_sentence(state.tokens + len(found) - 1, state) is not None
        ended = found[-1] == END and (is_last or splits)
        is_cut = found[-1] != END and is_closed(hypotheses[0])
        if is_cut or (found[-1] == END and not is_last and not splits):
            words = self._words(found[:-1], budget) if self._ends_word(found[-1], budget) else words[:-1]
        elif not is_last and not splits and budget.whole_words:
            words = words[:-1]  # stopped by the limit, perhaps inside a word
        state = replace(state, ended=ended)
        return (yield from self._read(words, state)) if words else ([], state)

    def _read(self, words: list[list[int]], state: SentenceState) -> Search[Extension]:
        """Known words, read in one pass, and the state with them committed."""
        tokens = [token for word in words for token in word]
        frames, first = self._attended(state)
        answer: TextAnswer = yield Rereading([[state.written[-1], *tokens[:-1]]], frames, state.mt, first)
        text = self.model.text_states(answer.hidden, torch.tensor([tokens], device=answer.hidden.device))
        log_probs = iter(log_probs_of(answer.logits[0], tokens))
        read = [
            WrittenWord(word, states, list(islice(log_probs, len(word))))
            for word, states in zip(words, text.split([len(word) for word in words], dim=1), strict=True)
        ]
        return read, state.committed(tokens, len(words), answer.state)

    def _spelt(self, words: list[WrittenWord], before: SentenceState) -> Search[list[WrittenWord]]:
        """The same words in subwords that the unit decoder knows, read once more if that changes any."""
        spelt = [self._known_tokens(word.tokens) for word in words]
        if spelt == [word.tokens for word in words]:
            return words
        read, _ = yield from self._read(spelt, before)
        return read

    def _known_tokens(self, tokens: list[int]) -> list[int]:
        """A word in the subwords that the unit decoder knows; as it is, if there are none for it."""
        if all(token < len(self.spoken_symbols) for token in tokens):
            return tokens
        word = "".join(self.symbols[token] for token in tokens)
        try:
            return self.splitter.split(word.removeprefix(WORD_MARK), self.starts_word[tokens[0]]) or tokens
        except SubwordError:
            return tokens

    def _speak(
        self, words: list[WrittenWord], state: SentenceState
    ) -> Search[tuple[list[tuple[int, ...]], SentenceState]]:
        """Units of committed words, repeats across words merged, and the next state."""
        text = torch.cat([word.text_states for word in words], dim=1)
        word_ids = [index for index, word in enumerate(words) for _ in word.tokens]
        answer: UnitAnswer = yield UnitReading(text, word_ids, state.unit)
        labels = answer.logits.argmax(dim=-1).tolist()
        spoken, start, reader = [], 0, state.unit_reader
        for word in words:
            end = start + len(word.tokens) * self.model.unit_decoder.frames_per_token
            symbols, reader = reader.read(labels[start:end])
            spoken.append(tuple(symbol - 1 for _, symbol in symbols))
            start = end
        return spoken, replace(state, unit=answer.state, unit_reader=reader)
