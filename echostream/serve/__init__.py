"""The server: a web page and the sessions of a WebSocket protocol for one model, see docs/protocol.md.

Its command, ``echostream serve``, is in :mod:`echostream.cli.serve`. Importing this package does not need the packages
of the extra ``serve``.
"""
