"""Options of the commands, and what their help says; nothing heavy is imported for them."""

from __future__ import annotations

import argparse
from pathlib import Path

from echostream.cli.options import (
    MODEL_HELP,
    add_model_options,
    add_user_dir,
    add_verbosity,
    add_voice_options,
    at_least,
    number,
    segment_ms,
)
from echostream.constants import (
    DEFAULT_PORT,
    DEFAULT_SEGMENT_MS,
    EXPORT_PRECISIONS,
    FRAME_MS,
    PCM_FORMATS,
    SAMPLE_RATE,
    SUBTITLE_CLOCKS,
    TASKS,
)
from echostream.serve.limits import add_limits

TRANSLATE_HELP = """
what goes in:
  Any recording, or the sound of a video: wav, mp3, m4a, mp4, webm, ogg, flac, wma and so on. - is the standard input:
  a recording too, or raw samples (16-bit, 16 kHz, one channel; --input-format, --input-rate and --input-channels).

what comes of it:
  The words are shown live on the standard output, with the time at which they were heard or said; --text prints the
  text alone, a sentence a line, and --json - a JSON object for each word. Everything else that is said goes to the
  standard error.
  Speech goes to -o (.wav, .mp3, .flac, .opus, .ogg), or beside the recording as NAME.translated.wav. With several
  recordings or a folder, -o, --vtt, --srt and --json are folders. Files named for one recording are overwritten; names
  derived from a recording's are kept if they exist, so that a second run does what is left (--force: do all again), and
  have .part in them until they are whole.

examples:
  echostream translate talk.mp3
  echostream translate talk.m4a -o talk.en.mp3 --srt talk.en.srt
  echostream translate talks/ -o translated/ --vtt translated/
  echostream translate talk.wav --text > talk.en.txt
  echostream translate talk.wav --model runs/model/checkpoint_last.pt --task s2tt --segment-ms 40 --realtime
  cat talk.mp3 | echostream translate - --json - | jq .text
  arecord -f S16_LE -r 16000 | echostream translate - | aplay -f S16_LE -r 16000
"""
ASR_HELP = """
examples:
  echostream asr talk.mp3
  echostream asr talk.mp4 --text > talk.txt
  echostream asr talks/ --srt subtitles/
  cat talk.webm | echostream asr - --text
"""
# Of all commands alike; docs/guides/command-line.md says the same.
EXIT_STATUS = """
exit status: 0 all done; 1 something failed: a recording (the others were done), a model, a device, a place to write to;
2 wrong options, and nothing was done; 130 stopped by Ctrl-C, 143 by SIGTERM, 141 because the reader of a pipe went
away: what was made until then is kept. A server that was told to stop, by Ctrl-C or a signal, ends with 0.
"""
SPEECH_OUTPUT_HELP = "speech, as wav, mp3, flac, opus or ogg by the name; -: raw s16le to a pipe"
SPEAK_HELP = """
A word is spoken as soon as a space follows it, so that speech begins while the text is still being written.

examples:
  echostream speak "my brother has gone on holiday to france" -o brother.mp3
  translate-slowly | echostream speak - -o - | aplay -f S16_LE -r 16000
"""
MIC_HELP = """
Ctrl-C ends the recording: what was heard is translated to its end. A second one stops at once.

examples:
  echostream mic
  echostream mic --play --segment-ms 40        (with headphones)
  echostream mic -o me.en.wav --vtt me.vtt
  echostream mic --list
"""
SERVE_HELP = """
examples:
  echostream serve
  echostream serve --model checkpoint_best.pt --task s2tt --segment-ms 160 --port 9000
  echostream serve --model checkpoint_best.pt --host 0.0.0.0 --certificate cert.pem --key key.pem

The page asks for the microphone, which browsers give to localhost and to https only. The protocol for programs is
described in docs/protocol.md; scripts/demo/serve_client.py is a client. /health and /metrics (Prometheus) watch the
server.
"""
INFO_HELP = """
example:
  echostream info models/fr-en
  echostream info runs/model/checkpoint_last.pt
"""
EXPORT_HELP = """
The states between the steps are inputs and outputs of the graphs; docs/guides/onnx.md names them all and has a whole
program. int8 makes the files about a third as large: the weights of a model released in int8 are those bytes.

examples:
  echostream export --model fr-en --output fr-en-onnx
  echostream export --model fr-en --output fr-en-onnx --precision int8 --segment-ms 160
  echostream export --model fr-en --output fr-en-page --precision int8 --page package
"""
MODELS_HELP = """
examples:
  echostream models list
  echostream models path fr-en
  echostream models fetch https://example.org/fr-en.tar.gz --sha256 HEX
"""


def add_translate_arguments(parser: argparse.ArgumentParser, task: str | None = None) -> None:
    """Add the options of ``translate``, or of ``asr`` where ``task`` says so."""
    parser.add_argument("audio", type=Path, nargs="+", metavar="IN", help="recording or video, folder of them, or -")
    group = parser.add_argument_group("output")
    if task is None:
        group.add_argument("-o", "--output", type=Path, metavar="OUT", help=SPEECH_OUTPUT_HELP)
        group.add_argument(
            "--task",
            choices=TASKS,
            help="translate to speech and text, to text alone, or transcribe (s2st; s2tt with --text and no -o)",
        )
    else:
        parser.set_defaults(output=None, task=task)
    add_text_options(group, with_clock=task is None)
    group.add_argument("--force", action="store_true", help="overwrite files with derived names too")
    group = parser.add_argument_group("input")
    group.add_argument("--realtime", action="store_true", help="take the recording no faster than it plays")
    group.add_argument("--input-format", choices=PCM_FORMATS, help="of raw samples (s16le)")
    group.add_argument(
        "--input-rate", type=at_least(4000), metavar="HZ", help=f"sample rate of raw samples ({SAMPLE_RATE})"
    )
    group.add_argument(
        "--input-channels", type=at_least(1), metavar="N", help="interleaved channels of raw samples (1)"
    )
    add_model_options(parser)
    add_verbosity(parser)


def add_text_options(group: argparse._ArgumentGroup, with_clock: bool = True) -> None:
    """Add ``--text``, and the options that write text to files."""
    language = "translation" if with_clock else "transcript"
    group.add_argument("--text", action="store_true", help="print the text alone, a sentence a line")
    group.add_argument(
        "--vtt",
        type=Path,
        metavar="OUT.vtt",
        help="WebVTT subtitles: " + ("source and translation" if with_clock else "transcript"),
    )
    group.add_argument("--srt", type=Path, metavar="OUT.srt", help=f"SubRip subtitles: the {language} alone")
    group.add_argument(
        "--json", type=Path, metavar="OUT.json", help="every word with its times; -: print them, an object a line"
    )
    if with_clock:
        group.add_argument(
            "--vtt-clock",
            choices=SUBTITLE_CLOCKS,
            default="source",
            help="times of the subtitles: those of the recording, or of the spoken translation alone (source)",
        )
    else:
        group.set_defaults(vtt_clock="source")


def add_speak_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``speak``."""
    parser.add_argument("text", nargs="+", metavar="TEXT", help="in the target language; - reads standard input")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help=SPEECH_OUTPUT_HELP)
    add_voice_options(parser.add_argument_group("model"))
    add_verbosity(parser)
    undecided = (
        "policy_option",
        "segment_ms",
        "policy",
        "stride_n",
        "lag_k",
        "beam",
        "source_lm",
        "lm_weight",
        "lm_bonus",
        "least_language",
        "least_confidence",
        "max_tempo",
        "vad",
    )
    parser.set_defaults(**dict.fromkeys(undecided))  # without a source there is nothing to wait for, or to search


def add_mic_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``mic``."""
    group = parser.add_argument_group("sound devices")
    group.add_argument("--list", action="store_true", help="list the devices and end")
    group.add_argument("--input", metavar="DEVICE", help="microphone: number or part of the name (system's default)")
    group.add_argument("--play", action="store_true", help="play the translation (wear headphones)")
    group.add_argument("--play-on", metavar="DEVICE", help="where --play is heard (system's default)")
    group.add_argument("--duration-s", type=number(0, 1e9), metavar="S", help="end after so many seconds (Ctrl-C)")
    group = parser.add_argument_group("output")
    group.add_argument("-o", "--output", type=Path, metavar="OUT", help=SPEECH_OUTPUT_HELP)
    group.add_argument("--task", choices=TASKS, help="as of translate (s2tt; s2st with -o or --play)")
    add_text_options(group)
    add_model_options(parser)
    add_verbosity(parser)


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``serve``."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="port to listen on; 0: any free one (%(default)s)"
    )
    parser.add_argument("--certificate", type=Path, help="TLS certificate (PEM), for https")
    parser.add_argument("--key", type=Path, help="its key (PEM), if the certificate's file doesn't hold it")
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="URL",
        help="another site whose pages may connect, such as https://example.org; may be repeated",
    )
    parser.add_argument(
        "--trust-proxy",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="proxy, or network of proxies, whose X-Forwarded-For tells the clients' addresses; may be repeated",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="access tokens, one a line: only who has one is served (or one in the variable ECHOSTREAM_TOKEN)",
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="save sessions there, so that a restarted server, or another one with the same model, goes on with them",
    )
    parser.add_argument("--source-lang", metavar="TAG", help="language heard, such as fr (the model's)")
    parser.add_argument(
        "--target-lang", metavar="TAG", help="language written, such as en: screen readers need to know (the model's)"
    )
    parser.add_argument(
        "--max-batch", type=at_least(1), default=32, metavar="N", help="sessions in a step; 1: one by one (32)"
    )
    parser.add_argument(
        "--task", choices=TASKS, help="of a session that asks for nothing else (s2st with a vocoder, else s2tt)"
    )
    add_model_options(parser)
    add_limits(parser)


def add_info_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``info``."""
    parser.add_argument("model", type=Path, nargs="?", help="as --model of translate (the only model)")
    parser.add_argument("--vocoder", type=Path, help="unit vocoder (default: the folder vocoder beside the model)")
    add_user_dir(parser)


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``export``."""
    parser.add_argument("--model", type=Path, help=MODEL_HELP)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to be made for the files")
    parser.add_argument("--vocoder", type=Path, help="unit vocoder (default: the folder vocoder beside the model)")
    parser.add_argument(
        "--segment-ms",
        type=segment_ms,
        metavar="MS",
        help=f"what a step hears, a multiple of {FRAME_MS} ms, fixed in the files ({DEFAULT_SEGMENT_MS})",
    )
    parser.add_argument(
        "--precision", choices=EXPORT_PRECISIONS, default="float32", help="of the weights in the files (float32)"
    )
    parser.add_argument(
        "--page",
        type=Path,
        metavar="ONNXRUNTIME_WEB",
        help="put a page for browsers beside the files, and what it needs of this unpacked npm package (no page)",
    )
    add_user_dir(parser)
    add_verbosity(parser)


def add_models_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``models``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    parser.set_defaults(action="list")
    actions.add_parser("list", help="name, languages, size and place of each model", description="List the models.")
    where = actions.add_parser("path", help="where a model is", description="Print where a model is.")
    where.add_argument("name", nargs="?", help="its name (the only one)")
    fetch = actions.add_parser("fetch", help="get a model", description="Fetch the archive of a model folder.")
    fetch.add_argument("url", help="https, http or file address of a .tar.gz, .tar or .zip")
    fetch.add_argument("--sha256", required=True, metavar="HEX", help="of the archive, from whoever you trust")
    fetch.add_argument("--name", help="to call it by (that of the folder in the archive)")
