"""The server's own policy and its options; a client may choose that one, and names no code of its own."""

from dataclasses import dataclass

import pytest

from echostream.decoding.policy import Budget, FixedRatePolicy
from echostream.serve.protocol import SessionError, Settings, parse_start, policies
from echostream.streaming import StreamingTranslator

OWN = "test_protocol_settings:Everything"
START = {"type": "start", "version": 1, "sample_rate": 16000}


@dataclass(frozen=True)
class Everything:
    tokens: int = 1

    def __call__(self, evidence, state):
        return Budget(tokens=self.tokens), state


@pytest.fixture(scope="module")
def translator():
    return StreamingTranslator.random("echostream_tiny", task="s2tt")


def test_the_servers_own_policy_may_be_chosen(translator):
    defaults = Settings(task="s2tt", policy=OWN, policy_options=(("tokens", 5),))
    assert policies(defaults)[-1] == OWN and len(policies(Settings())) == len(policies(defaults)) - 1
    for message in (START, START | {"policy": OWN}):
        policy = parse_start(message, defaults).settings.apply(translator).policy
        assert type(policy).__name__ == "Everything" and policy.tokens == 5
    other = parse_start(START | {"policy": "fixed-rate"}, defaults).settings
    assert other.apply(translator).policy == FixedRatePolicy()
    assert "policy_options" not in defaults.of_client()


@pytest.mark.parametrize(
    "message", [{"policy": "test_protocol_settings:Other"}, {"policy": OWN}, {"policy_options": {"tokens": 9}}]
)
def test_a_client_names_no_code(message):
    with pytest.raises(SessionError):
        parse_start(START | message, Settings(task="s2tt"))
