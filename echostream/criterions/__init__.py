"""fairseq criterions of EchoStream; importing this package registers ``echostream_multitask``."""

from echostream.criterions.multitask import EchoStreamMultiTaskCriterion, EchoStreamMultiTaskCriterionConfig

__all__ = ["EchoStreamMultiTaskCriterion", "EchoStreamMultiTaskCriterionConfig"]
