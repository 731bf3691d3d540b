"""Text in, speech out, word by word: the second half of the translator, whose text is given instead of decoded.

The MT decoder reads the words as a forced prefix, and its states go to the unit decoder and the vocoder as they do in a
translation. There is no source, so its cross-attention sees one frame of zeros: nothing is known about what was said,
and the words alone say what to speak.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from echostream.decoding.target_tokens import END
from echostream.modules.state import State
from echostream.streaming.sentence_stage import SentenceStageState, Writing
from echostream.streaming.state import StepOutput
from echostream.streaming.translator import StreamingTranslator
from echostream.streaming.word_level_translator import SentenceState


@dataclass
class TextToSpeechState(State):
    """Where the speech stands.

    Attributes:
        stage: of the current sentence and its vocoder.
        letters: of a word that may go on.
    """

    stage: SentenceStageState
    letters: str = ""


class TextToSpeech:
    """Speaks text in the target language while it is still being written.

    Args:
        translator: its text decoder, unit decoder and vocoder speak; its other options have no effect.

    Raises:
        ValueError: the translator has no vocoder.
    """

    def __init__(self, translator: StreamingTranslator) -> None:
        if translator.vocoder is None:
            raise ValueError("speech needs a vocoder: give one")
        self.model, self.writer = translator.model, translator.writer
        self.stage, self.recomposer = translator.sentences, translator.recomposer
        self.output_sample_rate = translator.output_sample_rate
        self.splitter = translator.writer.splitter

    def init_state(self) -> TextToSpeechState:
        """The state of a fresh text."""
        return TextToSpeechState(replace(self.stage.init_state(with_speech=True), sentence=self._fresh_sentence()))

    def _fresh_sentence(self) -> SentenceState:
        sentence = self.writer.init_state()
        nothing = self.model.mt_decoder.embedding.weight.new_zeros(1, 1, self.model.cfg.encoder_dim)
        return replace(sentence, span=replace(sentence.span, frames=nothing, end=1), num_frames=1)

    @torch.inference_mode()
    def step(self, text: str, state: TextToSpeechState, is_last: bool = False) -> tuple[StepOutput, TextToSpeechState]:
        """Speak more of the text.

        Args:
            text: what follows, cut anywhere. A word is spoken when a space comes after it, a sentence ends with a
                word that ends in ``.``, ``!`` or ``?``.
            state: of the text before.
            is_last: the text ends here.

        Returns:
            speech and the words in it with their times, and the next state.

        Raises:
            SubwordError: a word with letters that the model doesn't know; nothing of this step is spoken.
        """
        letters = state.letters + text
        words = letters.split()
        rest = words.pop() if words and not is_last and not letters[-1].isspace() else ""
        sentence = state.stage.sentence
        writings: list[Writing] = []
        # A word is spoken before it is known whether the sentence ends with it, so the end is always spoken apart.
        for word in words:
            if tokens := self.splitter.split(word):
                written, sentence = self.writer.write_given([tokens], sentence)
                writings.append(Writing(written, ends=False))
            if sentence.tokens and self.recomposer.ends_sentence(0, word):
                ending, sentence = self._end(sentence)
                writings.append(ending)
        if is_last and sentence.tokens:
            ending, sentence = self._end(sentence)
            writings.append(ending)
        (spoken,) = self.stage.speak([writings], [replace(state.stage, sentence=sentence)], [0.0])
        output = StepOutput(spoken.samples, spoken.words, sentence_ends=spoken.ends)
        return output, TextToSpeechState(spoken.state, rest)

    def _end(self, sentence: SentenceState) -> tuple[Writing, SentenceState]:
        """The end of a sentence, and the next one."""
        spoken, _ = self.writer.write_given([[END]], sentence)
        return Writing(spoken, ends=True), self._fresh_sentence()
