"""Errors of audio input."""


class AudioError(ValueError):
    """A recording can't be used, or only up to a certain point; the message names the recording and a remedy."""


class UnknownFormatError(AudioError):
    """What decodes recordings doesn't know the format of one."""
