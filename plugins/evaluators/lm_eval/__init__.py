"""lm-evaluation-harness: tasks, engine, documents and results."""
