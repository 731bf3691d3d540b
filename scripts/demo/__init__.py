"""The demo: recordings streamed through the agent, and a page with what came of it."""
