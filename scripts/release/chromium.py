"""Headless Chromium, driven over the Chrome DevTools Protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
START_S = 60


def find_chromium() -> str | None:
    """Command of the browser; None if it is not installed."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """A browser tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.errors: list[str] = []  # of scripts and of the security policy
        self.dialogs: list[str] = []  # kinds of those that came; all of them are answered with yes
        self._loaded = asyncio.Event()
        self._answers: set[asyncio.Task[dict[str, Any]]] = set()
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.socket:
            data = json.loads(message.data)
            if "id" in data:
                self._waiting.pop(data["id"]).set_result(data)
            elif data["method"] == "Runtime.exceptionThrown":
                details = data["params"]["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description", details["text"]))
            elif data["method"] == "Page.loadEventFired":
                self._loaded.set()
            elif data["method"] == "Page.javascriptDialogOpening":
                self.dialogs.append(data["params"]["type"])
                answer = asyncio.create_task(self.call("Page.handleJavaScriptDialog", accept=True))
                self._answers.add(answer)
                answer.add_done_callback(self._answers.discard)
            elif data["method"] == "Log.entryAdded" and data["params"]["entry"]["level"] == "error":
                self.errors.append(data["params"]["entry"]["text"])

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the protocol and return its result."""
        number = next(self._ids)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self.socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(START_S):
            answer = await self._waiting[number]
        assert "error" not in answer, answer
        return answer["result"]

    async def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression."""
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def heap_bytes(self) -> float:
        """What the page's scripts hold, without what could be given back."""
        await self.call("HeapProfiler.collectGarbage")
        return (await self.call("Runtime.getHeapUsage"))["usedSize"]

    async def wait_for(self, expression: str, timeout_s: float = 30) -> Any:
        """Wait until a JavaScript expression is true, and return its value."""
        deadline = time.monotonic() + timeout_s
        while not (value := await self.evaluate(expression)):
            if time.monotonic() > deadline:
                text = await self.evaluate("document.body.innerText")
                raise AssertionError(f"{expression} did not come true; the page says:\n{text}\n{self.errors}")
            await asyncio.sleep(0.02)
        return value

    async def open(self, url: str, ready: str = "document.querySelectorAll('main:not([aria-busy])').length") -> None:
        """Open a page and wait until an expression is true; by default the controls of the server's page work then."""
        await self.call("Page.navigate", url=url)
        await self.wait_for(ready)

    async def reload(self) -> None:
        """Load the page again and wait until it is there."""
        self._loaded.clear()
        await self.call("Page.reload")
        async with asyncio.timeout(START_S):
            await self._loaded.wait()

    async def hide(self) -> None:
        """Open another tab in front of this one, which the browser then slows down as any in the background."""
        await self.call("Target.createTarget", url="about:blank")
        await self.wait_for("document.visibilityState === 'hidden'")

    async def show(self) -> None:
        """Come back to this tab."""
        await self.call("Page.bringToFront")
        await self.wait_for("document.visibilityState === 'visible'")

    async def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key with real input events."""
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    async def click(self, selector: str) -> None:
        """Click in the middle of an element with real input events."""
        box = await self.evaluate(
            f"(() => {{ const e = document.querySelector('{selector}'); e.scrollIntoView({{block: 'nearest'}}); "
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        place = {"x": box[0], "y": box[1]}
        await self.call("Input.dispatchMouseEvent", type="mouseMoved", **place)
        for kind, buttons in (("mousePressed", 1), ("mouseReleased", 0)):
            await self.call(
                "Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, buttons=buttons, **place
            )

    async def choose_file(self, selector: str, path: Path) -> None:
        """Choose a file in a file input."""
        root = await self.call("DOM.getDocument")
        node = await self.call("DOM.querySelector", nodeId=root["root"]["nodeId"], selector=selector)
        await self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node["nodeId"])

    async def screenshot(self, path: Path, width: int, height: int, dark: bool = False) -> None:
        """Save a screenshot of the page at the given size, in the light or dark scheme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        picture = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(picture["data"]))


@contextlib.asynccontextmanager
async def chromium(command: str, microphone: Path | None = None) -> AsyncIterator[Page]:
    """A tab of a new browser, whose microphone plays a wav file once."""
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--remote-debugging-port=0",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
    ]
    if microphone is not None:
        options.append(f"--use-file-for-fake-audio-capture={microphone}%noloop")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            command,
            *options,
            f"--user-data-dir={profile}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            port = await _debugging_port(Path(profile), process)
            async with aiohttp.ClientSession() as client:
                targets = await (await client.get(f"http://127.0.0.1:{port}/json")).json()
                url = next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")
                async with client.ws_connect(url, max_msg_size=0) as socket:
                    page = Page(socket)
                    for domain in ("Page", "Runtime", "Log", "DOM"):
                        await page.call(f"{domain}.enable")
                    yield page
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _debugging_port(profile: Path, process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(START_S):
        while process.returncode is None:
            with contextlib.suppress(OSError, ValueError, IndexError):
                return int((profile / "DevToolsActivePort").read_text().splitlines()[0])
            await asyncio.sleep(0.05)
    raise RuntimeError(f"the browser ended with status {process.returncode}")
