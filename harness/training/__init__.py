"""Training: groups to token rows, one trainer for every objective, and the shared SFT."""
