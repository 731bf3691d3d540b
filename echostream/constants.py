"""Facts that many stages share, each stated once."""

SAMPLE_RATE = 16_000  # Hz, of everything that the model hears
FRAME_MS = 40  # an encoder frame of the front end fbank, and the unit of policies; see EchoStreamModel.frame_ms
FRAME_S = FRAME_MS / 1000
UNIT_SAMPLES = 320  # a frame of units: 20 ms
DEFAULT_SEGMENT_MS = 320  # of audio heard at a time, where nobody says otherwise
MAX_SEGMENT_MS, MAX_LIVE_SEGMENT_MS = 3_600_000, 5_120  # an hour; of a session with the server
TASKS = ("s2st", "s2tt", "asr")  # speech to speech, speech to text, transcription
DEFAULT_TASK = "s2st"
POLICY_NAMES = ("alignment", "token-alignment", "stride", "wait-k", "alignatt", "fixed-rate")  # see decoding/policy.py
DEFAULT_POLICY = "alignment"
DOUBTFUL = 0.5  # words whose confidence is below this are marked where people read them
LM_WEIGHT, LM_BONUS = 0.8, 2.0  # of the source's language model: see decoding/prefix_beam_search.py
MAX_LM_SCALE = 1_000.0  # of either, with any sign
MAX_BEAM = 100  # hypotheses of the MT decoder
MAX_THREADS = 1_024  # of a processor; torch ends the process where the system gives no more
MOST_TEMPO = 1.5  # what a listener follows without effort, and what durations of one to three frames allow
FULL_PRECISION = "float32"
PRECISIONS = (FULL_PRECISION, "bfloat16", "float16")  # of products of matrices: see modules/precision.py
EXPORT_PRECISIONS = ("float32", "int8")  # of the weights in ONNX files: see export/folder.py
SUBTITLE_CLOCKS = ("source", "speech")  # the recording's time, or that of the spoken translation alone
DEFAULT_PORT = 8765  # of the server
PCM_FORMATS = ("s16le", "f32le")  # of samples in a pipe
MAX_PEAK = 16.0  # of samples in [-1, 1]; larger ones must be integers that were not scaled to floating point
