"""The look of a board: one template, one style, one script, all inlined into the page."""
