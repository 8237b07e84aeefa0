"""The papers' own analyses, run on any source and starting model: each is one module, and `catalogue` names them all."""
