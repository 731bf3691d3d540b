"""``echostream serve``: a web page and a WebSocket server for one model, see docs/protocol.md.

Importing this package does not need the packages of the extra ``serve``; only :func:`echostream.serve.command.run`
imports them.
"""
