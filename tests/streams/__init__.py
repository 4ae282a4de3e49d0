"""Tests of procd.streams against models: bytes in, bytes out."""
