"""Task files of our own, for what lm-eval does not ship: `gsm8k_eval`."""
