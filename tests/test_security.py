"""Recordings, models, options and requests must not be able to run code or read files."""

import ast
import asyncio
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PYTHON_FILES = sorted(path for part in ("echostream", "agent", "scripts") for path in (REPOSITORY / part).rglob("*.py"))
SHELL_FILES = sorted([*(REPOSITORY / "scripts").rglob("*.sh"), REPOSITORY / ".ci" / "run"])
LOADER = REPOSITORY / "echostream" / "checkpoints" / "safe_loading.py"
# Where files that others wrote are opened; everything else goes through these modules and their limits.
LOADING = {
    "torch.load": (LOADER,),
    "safetensors.torch.load_file": (LOADER,),
    "yaml.safe_load": (REPOSITORY / "scripts" / "recipes" / "cvss_c" / "data_set.py",),  # a template of the checkout
}
FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "joblib.load"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.hub.load", "torch.package.PackageImporter"),
}


def calls(path: Path):
    """Name and node of every call in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keyword(node: ast.Call, name: str) -> object:
    value = next((entry.value for entry in node.keywords if entry.arg == name), None)
    return value.value if isinstance(value, ast.Constant) else value


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_code_has_no_unsafe_calls(path):
    for name, node in calls(path):
        assert name not in FORBIDDEN, f"{path}:{node.lineno}"
        if name == "torch.load":
            assert keyword(node, "weights_only") is True, f"{path}:{node.lineno}"
        if name in LOADING:
            assert path in LOADING[name], f"{path}:{node.lineno}: files are read through {LOADER.name}"
        assert keyword(node, "allow_pickle") in (None, False), f"{path}:{node.lineno}"
        assert keyword(node, "shell") in (None, False), f"{path}:{node.lineno}"


def test_check_finds_all_kinds_of_calls(tmp_path):
    (tmp_path / "bad.py").write_text(
        "import torch\ndef f(x):\n    return [torch.load(x, weights_only=False), eval(x)]\n"
    )
    found = dict(calls(tmp_path / "bad.py"))
    assert set(found) == {"torch.load", "eval"} and keyword(found["torch.load"], "weights_only") is False


@pytest.mark.parametrize("path", SHELL_FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_shell_scripts_do_not_evaluate_strings(path):
    text = re.sub(r"(?m)(^|\s)#.*$", "", path.read_text(encoding="utf-8"))
    assert not re.search(r"(^|[;&|(\s])eval\s", text, re.M)
    # Only files of the repository are sourced.
    for sourced in re.findall(r"^\s*(?:source|\.)\s+(.*)$", text, re.M):
        assert re.fullmatch(r'"\$(here|scripts|repository)/[\w./-]+\.sh"', sourced), sourced
    # A program in another language must be a fixed string in single quotes.
    for program in re.findall(r"\s-c\s+(\S)", text):
        assert program != '"', f"a program made of strings in {path}"


# --- options of the recipes --------------------------------------------------------------------------------------

PAYLOADS = ("a[$(touch PWNED)]", "x; touch PWNED; $(touch PWNED) `touch PWNED` ' \" && touch PWNED")
NEEDED = {
    "scripts/train.sh": ["--data", "{work}/data", "--save-dir", "{work}/model", "--max-update", "1"],
    "scripts/evaluate.sh": ["--model", "{file}", "--source", "{file}", "--target", "{file}", "--output", "{work}/out"],
    "scripts/demo/demo.sh": ["--model", "{work}/data", "--output", "{work}/out"],
    "scripts/recipes/quickstart/demo.sh": ["--work", "{work}/out"],
    "scripts/recipes/custom/run.sh": ["--data-root", "{work}/out", "--table", "{file}"],
}
LIBRARIES = ("recipe.sh", "corpus.sh", "require_packages.sh", "agent_options.sh")
RECIPES = [path for path in SHELL_FILES if path.suffix == ".sh" and path.name not in LIBRARIES]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_options_of_recipes_are_not_executed(recipe, tmp_path):
    """Put commands into each option; the interpreter does nothing, so that the shell script runs as far as possible."""
    work = tmp_path / "work"
    (work / "data").mkdir(parents=True)
    for name in ("train.tsv", "config_gcmvn.yaml", "config_multitask.yaml", "model.yaml", "file.tsv"):
        (work / "data" / name).write_text("id\n")
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(0o755)
    name = str(recipe.relative_to(REPOSITORY))
    needed = [
        part.format(work=work, file=work / "data/file.tsv") for part in NEEDED.get(name, ["--data-root", "{work}/o"])
    ]
    usage = subprocess.run([recipe, "--help"], capture_output=True, text=True, check=False)
    options = sorted(set(re.findall(r"(?m)^\s+(--[a-z][a-z0-9-]+) [A-Z\"]", usage.stdout)))
    # This one only names a program, whose interpreter prints the options: with none on the path there are none to see.
    is_wrapper = name == "scripts/average_checkpoints.sh"
    assert is_wrapper or options, usage.stderr
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(python), "HOME": str(tmp_path)}
    processes = []
    for option in options:
        for payload in PAYLOADS:
            command = [recipe, *needed, "--python", python, option, payload]
            if name == "scripts/evaluate.sh":  # its interpreter is in the environment
                command = [recipe, *needed, option, payload]
            processes.append(
                subprocess.run(
                    list(map(str, command)), cwd=work, env=environment, capture_output=True, stdin=subprocess.DEVNULL,
                    check=False, timeout=60,
                )
            )  # fmt: skip
    assert not list(tmp_path.rglob("PWNED"))
    assert is_wrapper or any(process.returncode for process in processes), "some of it must have been refused"


# --- versions ----------------------------------------------------------------------------------------------------


def test_all_dependencies_have_bounds():
    described = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    project = described["project"]
    extras = project["optional-dependencies"].values()
    requirements = [*project["dependencies"], *(one for some in extras for one in some)]
    assert len(requirements) > 30
    for requirement in [*requirements, *described["build-system"]["requires"]]:
        if not requirement.startswith("echostream["):  # other extras of the package itself
            assert re.fullmatch(r"[\w-]+(\[\w+\])?(==[\w.]+|>=[\w.]+,<[\w.]+)", requirement), requirement


# --- requests ----------------------------------------------------------------------------------------------------

OUTSIDE = (
    "/static/../app.py",
    "/static/..%2fapp.py",
    "/static/%2e%2e/app.py",
    "/static/%2e%2e%2fapp.py",
    "/static/..%5capp.py",
    "/static/....//app.py",
    "/static/%252e%252e%252fapp.py",
    "/static//etc/passwd",
    "/static/%2fetc%2fpasswd",
    "/static/index.html/../../app.py",
    "/static/index.html%00.js",
    "/static/",
    "/static",
    "/static/.",
    "/static/nothing.js",
    "/app.py",
    "//etc/passwd",
    "/../../../../../../etc/passwd",
)


@pytest.fixture(scope="module")
def server():
    """A server with a tiny model, in an event loop of this test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "tests"))
        patch.syspath_prepend(str(REPOSITORY / "tests" / "serve"))
        from tiny_translator import make_translator
        from wire import running

        from echostream.serve.app import Server

        yield lambda: running(Server(make_translator("istft")))


async def ask(url: str, request: bytes) -> bytes:
    """The response to a raw request, which no library has normalised."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers, "", "")).encode()


def test_request_paths_give_no_access_to_files(server):
    opened: list[str] = []
    watched = [False]

    def audit(event: str, arguments: tuple) -> None:
        if watched[0] and event in ("open", "os.listdir", "os.scandir"):
            opened.append(str(arguments[0]))

    sys.addaudithook(audit)

    async def run() -> tuple[dict[str, bytes], bytes]:
        async with server() as url:
            watched[0] = True
            answers = {path: await ask(url, get(path)) for path in OUTSIDE}
            watched[0] = False
            return answers, await ask(url, get("/static/app.js"))

    answers, packaged = asyncio.run(run())
    for path, answer in answers.items():
        assert answer.split(b" ")[1] in (b"404", b"400"), (path, answer[:200])
        assert b"root:" not in answer and b"import" not in answer
    assert not opened
    assert packaged.startswith(b"HTTP/1.1 200") and b"Content-Security-Policy" in packaged


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/" + "a" * 20_000), b"400"),
        (get("/", "X-Long: " + "a" * 20_000), b"400"),
        (b"POST /ws HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", b"405"),
        (b"PUT /static/app.js HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", b"405"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", b"400"),
    ],
)
def test_malformed_requests_are_rejected(server, request_, status):
    async def run() -> bytes:
        async with server() as url:
            return await ask(url, request_)

    assert asyncio.run(run()).split(b" ")[1] == status


VULNERABLE = {"name": "tqdm", "version": "4.64.1", "vulns": [{"id": "GHSA-x", "aliases": ["CVE-2024-34062"]}]}
OPEN = {"name": "aiohttp", "version": "3.13.0", "vulns": [{"id": "CVE-2999-1", "fix_versions": ["3.13.3"]}]}
UNKNOWN = {"name": "torch", "version": "2.11", "skip_reason": "not found on the index"}


@pytest.mark.parametrize(
    ("answer", "status", "in_ci", "said"),
    [
        ({"dependencies": [VULNERABLE]}, 0, 0, "1 packages looked up, 1 vulnerabilities, 0 of them open"),
        ({"dependencies": [VULNERABLE, OPEN]}, 1, 1, "aiohttp 3.13.0: CVE-2999-1: fixed in 3.13.3"),
        ({"dependencies": [UNKNOWN]}, 2, 0, "the advisory service knows nothing of 1 packages, such as torch"),
        ({"dependencies": [OPEN, UNKNOWN]}, 1, 1, "1 of them open"),
        (None, 2, 0, "pip-audit gave no answer: no route to host"),
    ],
    ids=["explained", "open", "unknown", "open and unknown", "unreachable"],
)
def test_audit_fails_on_what_is_open_and_in_ci_on_nothing_else(tmp_path, answer, status, in_ci, said):
    says = f"print({json.dumps(json.dumps(answer))})" if answer else "import sys; sys.exit('no route to host')"
    (tmp_path / "pip_audit.py").write_text(says, encoding="utf-8")
    for options, expected in (([], status), (["--skip-unreachable"], in_ci)):
        command = [sys.executable, REPOSITORY / ".ci" / "audit.py", *options]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == expected and said in done.stdout + done.stderr
        assert ("skipped: " in done.stdout) == (expected != status)
