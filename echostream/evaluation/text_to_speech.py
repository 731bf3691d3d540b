"""SimulEval from text to speech, which SimulEval 1.1.4 has names for, but neither data nor instances."""

from __future__ import annotations

from argparse import Namespace

import soundfile
from simuleval.agents import AgentStates, TextToSpeechAgent
from simuleval.agents.actions import Action, ReadAction, WriteAction
from simuleval.data.dataloader import register_dataloader
from simuleval.data.dataloader.t2t_dataloader import TextToTextDataloader
from simuleval.data.segments import EmptySegment, SpeechSegment
from simuleval.evaluator.instance import INSTANCE_TYPE_DICT, SpeechOutputInstance, TextInputInstance

from echostream.decoding.subwords import SubwordError
from echostream.evaluation.agent import EchoStreamAgent
from echostream.printing import one_printable_line
from echostream.streaming.text_to_speech import TextToSpeech, TextToSpeechState


class TextStates(AgentStates):
    """State of a text that is being spoken."""

    def reset(self) -> None:
        """Start another text."""
        super().reset()
        self.taken = 0  # words of the source that were spoken
        self.stream: TextToSpeechState | None = None


class EchoStreamTTSAgent(EchoStreamAgent, TextToSpeechAgent):
    """Text of the target language in, word by word, and its speech out."""

    source_type = "text"
    task = "s2st"

    def __init__(self, args: Namespace) -> None:
        super().__init__(args)
        self.speaker = TextToSpeech(self.translator)

    def build_states(self) -> TextStates:
        """State of a new text."""
        return TextStates()

    def policy(self, states: TextStates | None = None) -> Action:
        """Speak the words that are new.

        Raises:
            SystemExit: a word that the model can't say.
        """
        states = self.states if states is None else states
        words, finished = states.source[states.taken :], states.source_finished
        if not words and not finished:
            return ReadAction()
        states.taken += len(words)
        stream = states.stream or self.speaker.init_state()
        try:
            output, states.stream = self.speaker.step("".join(f"{word} " for word in words), stream, finished)
        except SubwordError as error:
            raise SystemExit(f"error: {one_printable_line(error)}") from error
        self.show(output.text)
        states.target_finished = finished  # SimulEval does not update it when an agent returns a Segment
        if len(output.samples) == 0:
            return WriteAction(EmptySegment(finished=finished), finished=finished)
        rate = self.speaker.output_sample_rate
        segment = SpeechSegment(content=output.samples.tolist(), sample_rate=rate, finished=finished, tgt_lang=None)
        return WriteAction(segment, finished=finished)


@register_dataloader("text-to-speech")
class TextToSpeechDataloader(TextToTextDataloader):
    """Texts to be spoken, a line each; the references are texts as well."""

    @classmethod
    def from_args(cls, args: Namespace) -> TextToSpeechDataloader:
        """The texts that ``--source`` and ``--target`` name; without a target the source is the reference."""
        args.source_type, args.target_type = "text", "speech"
        return cls.from_files(args.source, args.target or args.source)

    def get_target(self, index: int) -> str:
        """The reference without its line break."""
        return super().get_target(index).strip()


class TextToSpeechInstance(TextInputInstance, SpeechOutputInstance):
    """A text that is spoken. Delays count words, so they don't say where a listener waits: the speech has no gaps."""

    def step_to_elapsed(self, *args: object) -> float:
        """SimulEval's own count for text."""
        return 0.0

    def summarize(self) -> dict:
        """Write the speech; the line for ``instances.log``."""
        samples = [sample for piece in self.prediction_list for sample in piece]
        if samples:
            soundfile.write(self.wav_path, samples, self.target_sample_rate)
        return {
            "index": self.index,
            "prediction": self.wav_path.as_posix(),
            "delays": self.delays,
            "durations": self.durations,
            "elapsed": self.elapsed,
            "prediction_length": sum(self.durations) / 1000,
            "reference": self.reference,
            "source": self.source_info,
            "source_length": self.source_length,
        }


def install() -> None:
    """Make SimulEval's evaluators take these instances from text to speech. Further calls have no effect."""
    INSTANCE_TYPE_DICT["text-speech"] = TextToSpeechInstance
