"""Around a training: its options, what it needs, its progress, averaged checkpoints, language models."""
