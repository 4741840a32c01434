"""The installation's keys, and encryption of small secrets with them."""
