"""The transparency log, without database and network: Merkle tree, tiles, notes, checkpoints, proofs, witnesses.

:mod:`audit.log.verifier` is the single file that auditors get; everything else here stands on it, so that what verifies
and what is verified read the formats with the same code. Specifications: RFC 6962 and C2SP (``docs/audit-log.md``).
"""
