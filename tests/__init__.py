"""Tests, laid out as procd/ is."""
