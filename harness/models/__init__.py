"""Models: loading, prompts, log-probabilities, generation, similarity."""
