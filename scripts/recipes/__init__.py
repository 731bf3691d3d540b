"""One folder for each corpus, and what the recipes share: stages, resuming, shards, jobs."""
