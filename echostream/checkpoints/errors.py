"""What may be wrong with the files of a model."""


class CheckpointError(ValueError):
    """A model that is missing, damaged or of another kind; the message names its file and the remedy."""


class UnsafeFileError(ValueError):
    """A file that is damaged, or holds more than data; the message says what is wrong, without the file's name."""


def short(value: object) -> str:
    """What a file holds, cut to fit into a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
