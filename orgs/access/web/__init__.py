"""The gate of every page, and asking again who is there."""
