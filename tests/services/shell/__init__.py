"""Tests of procd.services.shell."""
