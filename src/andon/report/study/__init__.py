"""The study's results section: one page, LaTeX, figures, CSV and a bibliography, made from the store alone."""
