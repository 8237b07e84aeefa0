"""Observers: the terminal's progress display and experiment trackers."""
