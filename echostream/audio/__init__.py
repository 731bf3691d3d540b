"""Audio input from files and pipes, and speech output to files and pipes."""
