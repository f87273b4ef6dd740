"""Decoders of on-disk structures: bytes in, records out. None of them opens a path."""
