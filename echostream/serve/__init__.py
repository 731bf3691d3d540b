"""``echostream serve``: a web page and a WebSocket over one model, see docs/protocol.md.

The package is imported without its optional packages (extra ``serve``); only
:func:`echostream.serve.command.run` needs them.
"""
