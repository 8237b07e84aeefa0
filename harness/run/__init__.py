"""A comparison as it runs: plan, stages, executors, results."""
