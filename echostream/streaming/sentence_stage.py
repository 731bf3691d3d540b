"""Decide, write, speak, recompose: from what was recognised in a segment to words and speech.

The stage knows sentences. Where one ends, by a pause of the source, by punctuation of the translation or by what is
said (:mod:`echostream.decoding.sentence_breaks`), it is written to its end, and the next one starts afresh.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from echostream.decoding.joint_search import Pass, Search, decoder_passes, search_together
from echostream.decoding.policy import Policy
from echostream.decoding.sentence_breaks import SentenceBreakDetector, SentenceBreakState
from echostream.modules.state import State
from echostream.streaming.recogniser import Recognition
from echostream.streaming.recomposer import NO_SAMPLES, OutputWord, RecomposerState, SentenceRecomposer
from echostream.streaming.source_span import SourceSpan
from echostream.streaming.tempo import next_tempo, pause_share
from echostream.streaming.word_level_translator import SentenceState, TargetWord, WordLevelTranslator
from echostream.vocoders.interface import UnitVocoder, VocoderInput, VocoderOutput, VocoderState


@dataclass
class SentenceStageState(State):
    """Where the translation stands.

    Attributes:
        sentence: the current one.
        output: positions in the output.
        breaks: of the search for sentence breaks, with a language model of the source.
        vocoder: of the current sentence's speech; None for text.
        frames: encoder frames so far.
        in_sentence: words have been given out of a sentence that has not ended.
    """

    sentence: SentenceState
    output: RecomposerState
    breaks: SentenceBreakState | None = None
    vocoder: VocoderState | None = None
    frames: int = 0
    in_sentence: bool = False


@dataclass(frozen=True)
class Writing:
    """Words written in one sentence; ``ends``: the sentence ends with them."""

    words: list[TargetWord]
    ends: bool


@dataclass(frozen=True)
class Recognised:
    """A segment of one stream that is to be translated.

    Attributes:
        frames: ``(1, n, D)`` encoder frames @25 Hz.
        recognition: what was recognised in them.
        is_last: the source ends here: everything is written.
    """

    frames: Tensor
    recognition: Recognition
    is_last: bool = False


@dataclass(frozen=True)
class Spoken:
    """What a segment of one stream gives out.

    Attributes:
        words: with speech, those that have their place now.
        ends: how many of them come before each end of a sentence.
        samples: ``(m,)``.
        state: the next one.
    """

    words: list[OutputWord]
    ends: list[int]
    samples: np.ndarray
    state: SentenceStageState


class SentenceStage:
    """From evidence to words, units and samples.

    Args:
        writer: policy, MT decoder and unit decoder of a sentence.
        recomposer: knows where sentences end, and places words in the output.
        breaks: finds sentence breaks in the source; None: only pauses and punctuation end sentences.
        vocoder: speaks the units; None for text.
    """

    def __init__(
        self,
        writer: WordLevelTranslator,
        recomposer: SentenceRecomposer,
        breaks: SentenceBreakDetector | None = None,
        vocoder: UnitVocoder | None = None,
    ) -> None:
        self.writer, self.recomposer, self.breaks, self.vocoder = writer, recomposer, breaks, vocoder

    def init_state(self, with_speech: bool) -> SentenceStageState:
        """The state of a fresh stream."""
        return SentenceStageState(
            self.writer.init_state(),
            self.recomposer.init_state(),
            self.breaks.init_state() if self.breaks is not None else None,
            self.vocoder.init_state() if self.vocoder is not None and with_speech else None,
        )

    def write(
        self, recognised: Sequence[Recognised], policy: Policy, states: Sequence[SentenceStageState]
    ) -> list[tuple[list[Writing], SentenceStageState]]:
        """Decide and write: the words that a segment allows, sentence by sentence, of each stream.

        Args:
            recognised: a segment of each stream.
            policy: decides when to write, and how much.
            states: of the segments before; words get units if they have a vocoder's state.

        Returns:
            for each stream what was written, at least one entry for each sentence that was looked at, and the next
            state.
        """
        searches = [
            self.writing(one.frames, one.recognition, policy, state, one.is_last)
            for one, state in zip(recognised, states, strict=True)
        ]
        return search_together(searches, decoder_passes(self.writer.model))

    def writing(
        self,
        frames: Tensor,
        recognition: Recognition,
        policy: Policy,
        state: SentenceStageState,
        is_last: bool = False,
    ) -> Search[tuple[list[Writing], SentenceStageState]]:
        """:meth:`write` for one stream, as a search to be carried out together with others."""
        first, end = state.frames, state.frames + frames.size(1)
        words = recognition.counted_words
        places = [word.frames(self.writer.model.frame_ms) for word in words]
        span = SourceSpan(
            frames,
            end,
            places,
            recognition.source_tokens,
            [first + frame for frame in recognition.target_tokens],
            tuple(
                (place[0], word.text if word.joined else f" {word.text}")
                for place, word in zip(places, words, strict=True)
            ),
            [first + frame for frame in recognition.expected_tokens],
        )
        with_units, sentence, breaks = state.vocoder is not None, state.sentence, state.breaks
        break_frames: list[int] = []
        if self.breaks is not None and breaks is not None:
            break_frames, breaks = self.breaks.find(recognition.counted_words, breaks)
        writings: list[Writing] = []
        for frame in break_frames:
            sentence = self.writer.add_evidence(span.before(frame), sentence)
            span = span.since(frame)
            sentence, following = self.writer.split(frame, sentence)
            if following is not None:
                more, ended = yield from self._write_sentences(sentence, True, policy, with_units)
                writings += more
                sentence = ended.followed_by(following)
        sentence = self.writer.add_evidence(span, sentence)
        silence_ms = recognition.silence_frames * self.writer.model.frame_ms
        ends = is_last or (sentence.source_words > 0 and self.recomposer.ends_sentence(silence_ms, ""))
        more, sentence = yield from self._write_sentences(sentence, ends, policy, with_units)
        return writings + more, replace(state, sentence=sentence, breaks=breaks, frames=end)

    def _write_sentences(
        self, sentence: SentenceState, ends: bool, policy: Policy, with_units: bool
    ) -> Search[tuple[list[Writing], SentenceState]]:
        """Write in ``sentence`` and in those that wait behind it; the sentence that goes on."""
        writings: list[Writing] = []
        while True:
            budget, sentence = self.writer.decide(policy, sentence)
            words: list[TargetWord] = []
            closes = ends
            if ends:
                budget = self.writer.decide_at_end(policy, sentence)
            if budget is not None and not (ends and sentence.is_silent):
                words, sentence = yield from self.writer.translate_word(budget, sentence, ends, with_units)
                closes = ends or sentence.ended or any(self.recomposer.ends_sentence(0, word.text) for word in words)
            writings.append(Writing(words, closes))
            if not closes:
                return writings, sentence
            ended, following = self.writer.split_overdue(sentence)
            if following is None:
                return writings, ended.followed_by(self.writer.init_state())
            sentence = ended.followed_by(following)

    def speak(
        self,
        writings: Sequence[Iterable[Writing]],
        states: Sequence[SentenceStageState],
        source_times_s: Sequence[float],
        least_confidence: float = 0.0,
        max_tempo: float = 1.0,
    ) -> list[Spoken]:
        """Speak and recompose: samples of what each stream has written, and the place of each word in them.

        Args:
            writings: what was written, in order, of each stream.
            states: of the segments before.
            source_times_s: how much of the source had been heard when it was written.
            least_confidence: words of less than that are neither given out nor spoken.
            max_tempo: to which speech that has fallen behind may hurry; 1: never.
        """
        passes: dict[type, Pass] = {VocoderInput: self.vocoder.step_batch} if self.vocoder is not None else {}
        searches = [
            self._speaking(*stream, least_confidence, max_tempo)
            for stream in zip(writings, states, source_times_s, strict=True)
        ]
        return search_together(searches, passes)

    def _speaking(
        self,
        writings: Iterable[Writing],
        state: SentenceStageState,
        source_time_s: float,
        least_confidence: float,
        max_tempo: float,
    ) -> Search[Spoken]:
        """:meth:`speak` for one stream, which asks the vocoder for one sentence's speech at a time."""
        if least_confidence:
            writings = [replace(writing, words=_sure(writing.words, least_confidence)) for writing in writings]
        if self.vocoder is None or state.vocoder is None:
            words, ends = [], _SentenceEnds(state.in_sentence)
            for writing in writings:
                words += [
                    OutputWord(word.text, source_time_s, joined=word.joined, confidence=word.confidence)
                    for word in writing.words
                    if word.text
                ]
                ends.add(len(words), writing.ends)
            return Spoken(words, ends.places, NO_SAMPLES, replace(state, in_sentence=ends.in_sentence))
        due = [writing for writing in writings if writing.words or writing.ends]
        if not due:
            return Spoken([], [], NO_SAMPLES, state)
        output, vocoder = state.output, state.vocoder
        words, ends = [], _SentenceEnds(state.in_sentence)
        pieces: list[np.ndarray] = []
        for writing in due:
            for word in writing.words:
                output = self.recomposer.add_word(word, source_time_s, output)
            pause, runs = 1.0, [(output.tempo, [unit for word in writing.words for unit in word.units])]
            if max_tempo > 1:
                pause, runs = self._hurried(writing.words, output, source_time_s, max_tempo)
            for number, (tempo, units) in enumerate(runs, 1):
                output, vocoder = replace(output, tempo=tempo), replace(vocoder, tempo=tempo)
                is_last = number == len(runs)
                # The last units of a run get their durations with the first ones of the next, as within a run.
                answer: tuple[VocoderOutput, VocoderState] = yield VocoderInput(
                    torch.tensor(units, dtype=torch.int64), vocoder, writing.ends and is_last, flush=is_last
                )
                spoken, vocoder = answer
                durations, samples = spoken.durations.tolist(), spoken.samples.float().cpu().numpy()
                placed, samples, output = self.recomposer.place(durations, samples, output, pause)
                output = self.recomposer.speak(samples.size, source_time_s, output)
                words += placed
                pieces.append(samples)
            ends.add(len(words), writing.ends)
            if writing.ends:  # with its last units, all words of the sentence have got their places
                output, vocoder = self.recomposer.end_sentence(output), self.vocoder.init_state()
        following = replace(state, output=output, vocoder=vocoder, in_sentence=ends.in_sentence)
        return Spoken(words, ends.places, np.concatenate(pieces), following)

    def _hurried(
        self, words: Sequence[TargetWord], output: RecomposerState, source_time_s: float, max_tempo: float
    ) -> tuple[float, list[tuple[float, list[int]]]]:
        """What is left of the pause before the words, and the units of runs of words with the tempo of each run."""
        lag_s, tempo = output.lag_s(source_time_s), output.tempo
        runs: list[tuple[float, list[int]]] = [(tempo, [])]
        lengths_s = [self._length_s(word.units) for word in words]
        rest_s = sum(lengths_s)
        pause = pause_share(lag_s + rest_s)
        for word, length_s in zip(words, lengths_s, strict=True):
            tempo = next_tempo(tempo, lag_s + rest_s / tempo, max_tempo)
            if tempo != runs[-1][0]:
                runs.append((tempo, []))
            runs[-1][1].extend(word.units)
            lag_s, rest_s = lag_s + length_s / tempo, rest_s - length_s
        return pause, [run for run in runs if run[1]] or runs[-1:]

    def _length_s(self, units: Sequence[int]) -> float:
        """How long units are at a tempo of 1, by themselves."""
        if self.vocoder is None or not units:
            return 0.0
        frames = self.vocoder.predict_durations(torch.tensor(units, dtype=torch.int64, device=self.vocoder.device))
        return int(frames.sum()) * self.vocoder.hop_samples / self.vocoder.sample_rate


class _SentenceEnds:
    """Where sentences end among the words of a step; one without words has no end.

    Args:
        in_sentence: words of the first one were given out before.
    """

    def __init__(self, in_sentence: bool) -> None:
        self.in_sentence, self.places = in_sentence, list[int]()

    def add(self, num_words: int, ends: bool) -> None:
        """So many words have been given out in this step; ``ends``: the sentence ends with the last of them."""
        self.in_sentence = self.in_sentence or num_words > (self.places[-1] if self.places else 0)
        if ends and self.in_sentence:
            self.places.append(num_words)
            self.in_sentence = False


def _sure(words: Iterable[TargetWord], least_confidence: float) -> list[TargetWord]:
    """The words that are sure enough, and ends of sentences, which are no words.

    What continues a word that is left out is left out with it.
    """
    sure: list[TargetWord] = []
    is_left_out = False
    for word in words:
        if word.text and not (word.joined and is_left_out):
            is_left_out = word.confidence < least_confidence
        if not word.text or not is_left_out:
            sure.append(word)
    return sure
