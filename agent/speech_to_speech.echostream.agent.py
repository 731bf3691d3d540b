"""SimulEval agent: speech in, speech in another language out, while the speaker still talks.

    simuleval --agent agent/speech_to_speech.echostream.agent.py --model-path MODEL --vocoder VOCODER \\
        --source wavs.txt --target reference.txt --source-segment-size 320 --output OUT
"""

from simuleval.utils import entrypoint

from echostream.evaluation import EchoStreamWordLevelAgent

entrypoint(EchoStreamWordLevelAgent)
