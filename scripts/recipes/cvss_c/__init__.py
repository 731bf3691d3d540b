"""CVSS-C, as StreamSpeech prepares it."""
