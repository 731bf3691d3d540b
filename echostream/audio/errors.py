"""What may be wrong with a recording."""


class AudioError(ValueError):
    """A recording that can't be used, or not to its end; the message names it and the remedy."""
