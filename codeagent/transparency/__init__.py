"""Proof of the event log: an RFC 9162 Merkle tree over its leaf hashes, in the C2SP formats that others can check."""
