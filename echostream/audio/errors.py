"""Errors of audio input."""


class AudioError(ValueError):
    """A recording can't be used, or only up to a certain point; the message names the recording and a remedy."""


class UnknownFormatError(AudioError):
    """What decodes recordings doesn't know the format of one.

    Attributes:
        reason: why, in the decoder's words.
    """

    def __init__(self, name: str, reason: str, remedy: str) -> None:
        super().__init__(f"cannot read {name} as audio: {reason}; {remedy}")
        self.reason = reason
