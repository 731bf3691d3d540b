# The server with the model that ships, on the CPU: docker build -t echostream . && docker run -p 8765:8765 echostream
# Browsers give the microphone to localhost and to https only: elsewhere put a TLS proxy before it, or mount a
# certificate and add --certificate and --key to the command.
FROM python:3.11-slim AS build

WORKDIR /app
RUN pip install --no-cache-dir uv==0.13.9 && uv venv venv
ENV VIRTUAL_ENV=/app/venv UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1
# torch comes last: what it requires is there by then, with hashes, and PyTorch's CPU builds alone are looked up.
COPY requirements/inference-cpu.txt requirements/torch-cpu.txt requirements/
RUN uv pip install --require-hashes -r requirements/inference-cpu.txt \
    && uv pip install --torch-backend cpu -r requirements/torch-cpu.txt
COPY pyproject.toml setup.py README.md LICENSE ./
COPY echostream echostream
RUN uv pip install --no-deps --no-build-isolation .

FROM python:3.11-slim

RUN useradd --system --no-create-home --uid 10001 echostream
COPY --from=build /app/venv /app/venv
COPY models/fr-en /app/models/fr-en
ENV PATH=/app/venv/bin:$PATH PYTHONUNBUFFERED=1 ECHOSTREAM_MODELS=/app/models
WORKDIR /app
USER 10001
EXPOSE 8765
HEALTHCHECK --start-period=60s --interval=30s --timeout=5s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8765/health', timeout=4)"]
CMD ["echostream", "serve", "--host", "0.0.0.0"]
