"""Unknown and misspelt options and keys give one line with the most similar known one."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from cases import OPTIONS
from spoilt import TESTS

import echostream.tasks  # noqa: F401  # registers them


def told(words: str, echostream, recordings, model, train, corpus, simuleval, tmp_path, capsys) -> tuple[int, str]:
    """Status and last line of a row of ``cases.OPTIONS``."""
    program, _, rest = words.partition(" ")
    arguments = shlex.split(rest)
    if program == "echostream":
        command, *arguments = arguments
        if command == "serve":
            pytest.importorskip("aiohttp")
        status, said = echostream(command, *arguments)
        assert len(said) == 1
        return status, said[0]
    if program == "simuleval":
        status = simuleval([recordings["good"]], tmp_path / "out", *arguments)
        return status, capsys.readouterr().err.splitlines()[-1]
    if program == "fairseq-train":
        status = train(corpus, tmp_path / "run", 1, *arguments)
        return status, capsys.readouterr().err.splitlines()[-1]
    if program == "fairseq-hydra-train":
        return hydra(arguments[0], corpus, tmp_path)
    if program == "model.yaml:":
        folder = model.parent / "with settings"
        folder.mkdir(exist_ok=True)
        (folder / "model.yaml").write_text(yaml.safe_dump({"checkpoint": f"../{model.name}", **yaml.safe_load(rest)}))
        status, said = echostream("info", folder)
        assert len(said) == 1
        return status, said[0]
    done = subprocess.run(
        [TESTS.parent / program, *arguments, "x"], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}
    )
    assert len(done.stderr.splitlines()) == 1
    return done.returncode, done.stderr.strip()


def hydra(override: str, corpus, tmp_path: Path) -> tuple[int, str]:
    """The error of Hydra when it composes the configuration, or of fairseq when it builds the model."""
    from fairseq import tasks
    from fairseq.dataclass.configs import FairseqConfig
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import ConfigCompositionException

    ConfigStore.instance().store(name="echostream_tiny", node=FairseqConfig)
    needed = ["common.user_dir=echostream", f"task.data={corpus.folder}", f"checkpoint.save_dir={tmp_path}"]
    with initialize_config_dir(config_dir=str(TESTS.parent / "configs" / "hydra"), version_base="1.1"):
        try:
            config = compose("echostream_tiny", overrides=[*needed, "optimization.max_update=1", override])
        except ConfigCompositionException as error:  # hydra prints it without a traceback, and ends with 1
            return 1, f"error: {str(error).splitlines()[0]}"
    with pytest.raises(SystemExit) as ended:
        task = tasks.setup_task(config.task)
        task.build_model(config.model)
        task.build_criterion(config.criterion)
    return 1, str(ended.value)


@pytest.mark.parametrize("words", OPTIONS)
def test_similar_option_is_suggested(words, echostream, recordings, model, train, corpus, simuleval, tmp_path, capsys):
    status, said = told(words, echostream, recordings, model, train, corpus, simuleval, tmp_path, capsys)
    assert status in (1, 2) and OPTIONS[words] in said and "\n" not in said
    assert said.startswith(("error: ", "echostream: ")) or words.startswith("fairseq-train")


def test_values_and_abbreviations_are_parsed_as_by_argparse(echostream, recordings, model):
    """Abbreviations and options with = are parsed as by argparse."""
    options = ["--model", model, "--policy=wait-k", "--seg", "320", "--text", "-q"]
    assert echostream("asr", recordings["good"], *options)[0] == 0
