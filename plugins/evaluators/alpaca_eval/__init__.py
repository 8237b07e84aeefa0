"""AlpacaEval 2: its evaluator, and the package that computes its numbers."""
