"""Policies of one's own, named as ``module:Class``: loaded, given their options, or refused in one line."""

import itertools

import pytest

from echostream.decoding.policy import Budget, Evidence, PolicyState, build_policy, choose_policy, policy_name
from echostream.decoding.policy_arguments import option_argument, policy_argument
from echostream.plugins import PluginError

SOURCE = """
from dataclasses import dataclass
from echostream.decoding.policy import Budget, PolicyState

@dataclass(frozen=True)
class Chunks:
    words: int = 3
    def __call__(self, evidence, state):
        if evidence.source_words - state.source_words < self.words:
            return None, state
        return Budget(words=evidence.source_words), PolicyState(evidence.source_words)

class Plain:
    def __init__(self, limit):
        self.limit = int(limit)
    def __call__(self, evidence, state):
        return Budget(words=self.limit), state

def eager(evidence, state, *, tokens=1):
    return Budget(tokens=tokens), state

class NotOne:
    pass

def too_few(evidence):
    return None

number = 3
"""
NAMES = itertools.count()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module in the working folder, which is not on Python's path; its name."""
    monkeypatch.chdir(tmp_path)
    name = f"own_policies_{next(NAMES)}"
    (tmp_path / f"{name}.py").write_text(SOURCE, encoding="utf-8")
    return name


def ask(policy, **evidence):
    counts = {"frames": 9, "source_words": 4, "source_tokens": 6, "target_tokens": 5} | evidence
    return policy(Evidence(**counts), PolicyState())[0]


def test_a_class_gets_its_options_by_name(module):
    assert ask(build_policy(f"{module}:Chunks")) == Budget(words=4)
    assert ask(build_policy(f"{module}:Chunks", words=5, lag_k=None)) is None
    assert ask(build_policy(f"{module}:Plain", limit="7")) == Budget(words=7)
    with pytest.raises(ValueError, match=r"'.*:Chunks' has no option lag_k: it takes words"):
        build_policy(f"{module}:Chunks", lag_k=2)
    with pytest.raises(ValueError, match=r"'.*:Plain' has no option words: it takes limit"):
        build_policy(f"{module}:Plain", words=2)


def test_a_function_gets_its_options_by_name(module):
    policy = build_policy(f"{module}:eager", tokens=4)
    assert ask(policy) == Budget(tokens=4) and ask(choose_policy(policy, tokens=2)) == Budget(tokens=2)
    assert policy_name(policy) == policy_name(build_policy(f"{module}:eager")) == "eager"
    with pytest.raises(ValueError, match="has no option words: it takes tokens"):
        build_policy(f"{module}:eager", words=2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nowhere_at_all:Policy", {}, "there is no module 'nowhere_at_all' on Python's path"),
        ("{module}:Chunk", {}, "has no 'Chunk' in it"),
        ("{module}:Plain", {}, "can't be made with its defaults: TypeError: .*'limit'"),
        ("{module}:Plain", {"limit": "x"}, "can't be made with limit='x': ValueError"),
        ("{module}:NotOne", {}, "is no policy: it can't be called with"),
        ("{module}:too_few", {}, "is no policy: it can't be called with"),
        ("{module}:number", {}, "is no policy: it can't be called with"),
        ("{module}:", {}, "not of the form module:Class"),
        ("../x:Policy", {}, "not of the form module:Class"),
        ("broken_one:Policy", {}, "importing broken_one fails with ZeroDivisionError: division by zero"),
        ("needy_one:Policy", {}, "needy_one needs the module 'not_installed_at_all', which is not installed"),
        ("guess", {}, "unknown policy 'guess': choose one of alignment, .* as module:Class"),
        ("fixed-rate", {"token_frames": "x"}, "can't be made with token_frames='x'"),
        ("fixed-rate", {"token_frames": 0}, "token_frames must be at least 1"),
    ],
)
def test_what_is_no_policy_is_refused_in_a_line(module, tmp_path, name, options, message):
    (tmp_path / "broken_one.py").write_text("1 / 0\n", encoding="utf-8")
    (tmp_path / "needy_one.py").write_text("import not_installed_at_all\n", encoding="utf-8")
    with pytest.raises(ValueError, match=message) as refused:
        build_policy(name.format(module=module), **options)
    assert "\n" not in str(refused.value)
    assert isinstance(refused.value, PluginError) == (":" in name)


def test_options_on_the_command_line():
    assert policy_argument("my.module:Class") == "my.module:Class" and policy_argument("wait-k") == "wait-k"
    texts = ("words=3", "share=0.5", "loud=True", "voice=low", "long-name= 'a b'")
    assert dict(map(option_argument, texts)) == {
        "words": 3,
        "share": 0.5,
        "loud": True,
        "voice": "low",
        "long_name": "a b",
    }
    for wrong in ("words", "=3", "a b=3"):
        with pytest.raises(Exception, match="not of the form NAME=VALUE"):
            option_argument(wrong)
