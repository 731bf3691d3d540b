"""An hour of speech and hundreds of visitors, with everything watched that may grow."""
