"""Judges: language models behind an OpenAI-compatible endpoint that mark answers. One client for all judged evaluators."""
