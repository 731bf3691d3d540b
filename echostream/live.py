"""What a person sees while a stream is translated: a line for each language that has news."""

from __future__ import annotations

from echostream.models import StepOutput


def news(time_s: float, output: StepOutput) -> str:
    """Lines, each ended, with what a step heard and said; empty if that was nothing.

    Args:
        time_s: source time at the end of the step, in seconds.
        output: of the step.
    """
    lines = ""
    for verb, text in (("heard", output.source_text), ("said", output.text)):
        if text.strip():
            lines += f"  {time_s:6.2f} s  {verb:6} {text.strip()}\n"
    return lines
