"""API: keys, and the program's half of ``cloudsignal login``."""
