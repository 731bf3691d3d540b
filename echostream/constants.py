"""Facts that many stages share, each stated once."""

SAMPLE_RATE = 16_000  # Hz, of everything that the model hears
FRAME_MS = 40  # an encoder frame: 25 of them a second
FRAME_S = FRAME_MS / 1000
TASKS = ("s2st", "s2tt", "asr")  # speech to speech, speech to text, transcription
