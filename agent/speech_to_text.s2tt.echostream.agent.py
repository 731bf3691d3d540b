"""SimulEval agent: speech in, text in another language out, while the speaker still talks.

    simuleval --agent agent/speech_to_text.s2tt.echostream.agent.py --model-path MODEL \\
        --source wavs.txt --target reference.txt --source-segment-size 320 --output OUT
"""

from simuleval.utils import entrypoint

from echostream.evaluation import EchoStreamS2TTAgent

entrypoint(EchoStreamS2TTAgent)
