"""fairseq criterions of EchoStream; importing this package registers ``echostream_multitask``."""

from echostream.criterions.multitask import MultitaskCriterion, MultitaskCriterionConfig

__all__ = ["MultitaskCriterion", "MultitaskCriterionConfig"]
