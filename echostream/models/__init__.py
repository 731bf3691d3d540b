"""Whole models: the registered EchoStream model and the runtime that streams through it."""

from echostream.models.config import ARCHITECTURES, EchoStreamConfig, architecture_config
from echostream.models.echostream import EchoStreamModel
from echostream.models.model_folder import ModelSettings
from echostream.models.recomposer import OutputWord, SentenceRecomposer
from echostream.models.speech_encoder import EchoStreamSpeechEncoder
from echostream.models.stream import EchoStreamState, StepOutput
from echostream.models.streaming_translator import StreamingTranslator
from echostream.models.word_boundary import SourceWord, WordBoundaryDetector
from echostream.models.word_level_translator import WordLevelTranslator

__all__ = [
    "ARCHITECTURES",
    "EchoStreamConfig",
    "EchoStreamModel",
    "EchoStreamSpeechEncoder",
    "EchoStreamState",
    "ModelSettings",
    "OutputWord",
    "SentenceRecomposer",
    "SourceWord",
    "StepOutput",
    "StreamingTranslator",
    "WordBoundaryDetector",
    "WordLevelTranslator",
    "architecture_config",
]
