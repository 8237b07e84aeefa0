"""AlpacaEval 1 and 2: their evaluators, and the package that computes their numbers."""
