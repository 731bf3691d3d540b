"""A French-English corpus of everyday sentences that people wrote, read by many voices in many places."""
