"""Facts that many stages share, each stated once."""

SAMPLE_RATE = 16_000  # Hz, of everything that the model hears
FRAME_MS = 40  # an encoder frame of the front end fbank, and the unit of policies; see EchoStreamModel.frame_ms
FRAME_S = FRAME_MS / 1000
TASKS = ("s2st", "s2tt", "asr")  # speech to speech, speech to text, transcription
POLICY_NAMES = ("alignment", "token-alignment", "stride", "wait-k", "fixed-rate")  # see decoding/policy.py
SUBTITLE_CLOCKS = ("source", "speech")  # the recording's time, or that of the spoken translation alone
PCM_FORMATS = ("s16le", "f32le")  # of samples in a pipe
MAX_PEAK = 16.0  # of samples in [-1, 1]; larger ones must be integers that were not scaled to floating point
