"""Tests of procd.output against models: bytes in, bytes out."""
