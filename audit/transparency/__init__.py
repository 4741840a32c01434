"""The transparency log in the database: leaves get their index, trees grow, checkpoints are signed, proofs are made."""
