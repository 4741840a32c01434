"""Analysis of policies: comparison, linting, explanation, suggestions."""
