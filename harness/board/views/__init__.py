"""A board as text, Markdown, LaTeX, a terminal's table, a page, a notebook's cell and a site."""
