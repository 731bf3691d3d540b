"""Prometheus metrics of a server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10)


class Metrics:
    """Metrics of one server; each server has its own registry, so that a process can run several servers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.sessions = Gauge("echostream_sessions", "Sessions that are open", registry=registry)
        self.ended = Counter(
            "echostream_sessions_ended", "Sessions that ended, by close code", ["code"], registry=registry
        )
        self.audio_s = Counter("echostream_audio_seconds", "Audio received and sent", ["direction"], registry=registry)
        self.words = Counter("echostream_words", "Words recognised and written", ["side"], registry=registry)
        self.step_s = Histogram("echostream_step_seconds", "A batched step", buckets=SECONDS, registry=registry)
        self.batch_size = Histogram(
            "echostream_batch_size",
            "Sessions in a step",
            buckets=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64),
            registry=registry,
        )
        self.reaction_s = Histogram(
            "echostream_reaction_seconds",
            "From the arrival of the audio that completes a segment to its output",
            buckets=SECONDS,
            registry=registry,
        )
        self.waiting_s = Gauge("echostream_waiting_audio_seconds", "Audio that waits for the model", registry=registry)
        self.tasks = Gauge("echostream_tasks", "Tasks of the event loop", registry=registry)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
