"""SimulEval agent: text of the target language in, word by word, and its speech out.

    simuleval --user-dir agent --agent agent/text_to_speech.echostream.agent.py --model-path MODEL --vocoder VOCODER \\
        --source texts.txt --output OUT --quality-metrics ECHO_ASR_WER --latency-metrics AL
"""

from simuleval.utils import entrypoint

from echostream.evaluation import EchoStreamTTSAgent

entrypoint(EchoStreamTTSAgent)
