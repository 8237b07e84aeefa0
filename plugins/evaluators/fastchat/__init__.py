"""MT-Bench and Vicuna-Bench by FastChat: matches, scores and files."""
