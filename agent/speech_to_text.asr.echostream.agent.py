"""SimulEval agent: speech in, its transcript out, while the speaker still talks.

    simuleval --agent agent/speech_to_text.asr.echostream.agent.py --model-path MODEL \\
        --source wavs.txt --target reference.txt --source-segment-size 320 --output OUT
"""

from simuleval.utils import entrypoint

from echostream.evaluation import EchoStreamASRAgent

entrypoint(EchoStreamASRAgent)
