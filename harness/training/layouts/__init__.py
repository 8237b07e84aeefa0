"""How the m + 1 responses of a prompt lie in a forward pass. All layouts give the same numbers; see `layout`."""
