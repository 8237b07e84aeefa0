"""Templates of GitHub workflows: `harness publish --workflows DIR` writes them."""
