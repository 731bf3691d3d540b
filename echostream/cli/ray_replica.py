"""What a replica of Ray Serve runs: one ordinary EchoStream server on a port of this machine alone."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import time

from echostream.cli.serve import build_server
from echostream.serve.asgi import LOOPBACK
from echostream.serve.running import listening

log = logging.getLogger(__name__)

HEALTH_PERIOD_S = 1.0  # between two questions of Ray's controller
SILENCE_S = 4.0  # after which a replica that isn't asked any more wonders whether it is to stop


class Replica:
    """A server, which drains when Ray stops it as it would after SIGTERM.

    Args:
        args: options of ``echostream serve``.
    """

    async def __init__(self, args: argparse.Namespace) -> None:  # type: ignore[misc]  # Ray awaits it
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        args.trust_proxy = [*args.trust_proxy, LOOPBACK]  # this process hands its clients on
        self.server = build_server(args)
        self._open = contextlib.AsyncExitStack()
        self.port = await self._open.enter_async_context(listening(self.server, LOOPBACK, 0))
        self._asked_s = time.monotonic()
        self._watching = asyncio.create_task(self._drain_when_stopped())

    async def check_health(self) -> None:
        """Ray asks now and then, and replaces a replica that fails several times.

        Raises:
            RuntimeError: the server can't serve.
        """
        from echostream.serve.app import OK

        self._asked_s = time.monotonic()
        if self.server.status != OK:
            raise RuntimeError(self.server.status)

    async def _drain_when_stopped(self) -> None:
        """Ray tells a replica nothing: it waits until all sessions have ended, and kills it when its patience does.
        But a replica that is to stop isn't asked for its health any more."""
        while True:
            await asyncio.sleep(HEALTH_PERIOD_S / 2)
            if time.monotonic() - self._asked_s > SILENCE_S and await asyncio.to_thread(one_is_stopping):
                break
        log.warning("Ray stops this server: its sessions end or go on elsewhere")
        await self.server.drain()

    async def __del__(self) -> None:
        # Ray awaits this at the end; Python's own collector, after a constructor that failed, does not.
        if hasattr(self, "_watching"):
            self._watching.cancel()
            await self._open.aclose()


def one_is_stopping() -> bool:
    """Whether Ray stops a replica of this deployment; False too if its controller doesn't answer."""
    from ray import serve

    own = serve.get_replica_context()
    try:
        application = serve.status().applications.get(own.app_name)
    except Exception as error:  # Ray has many kinds, and a controller that restarts is none of this server's business
        log.warning("Ray's controller says nothing: %s", error)
        return False
    deployment = application.deployments.get(own.deployment) if application is not None else None
    return deployment is None or deployment.replica_states.get("STOPPING", 0) > 0


def port_of_replica() -> int:
    """Port of the server of the replica that this process is."""
    from ray import serve

    return serve.get_replica_context().servable_object.port
