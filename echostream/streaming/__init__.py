"""The runtime: audio in, translated words and speech out, one encoder segment after the other."""

from echostream.streaming.recomposer import OutputWord, SentenceRecomposer
from echostream.streaming.state import EchoStreamState, StepOutput
from echostream.streaming.translation import Translation
from echostream.streaming.translator import StreamingTranslator
from echostream.streaming.word_level_translator import WordLevelTranslator

__all__ = [
    "EchoStreamState",
    "OutputWord",
    "SentenceRecomposer",
    "StepOutput",
    "StreamingTranslator",
    "Translation",
    "WordLevelTranslator",
]
