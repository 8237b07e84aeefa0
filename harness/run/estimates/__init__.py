"""Estimates of what a comparison would take: stages and artifacts, GPUs, judges."""
