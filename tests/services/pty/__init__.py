"""Tests of procd.services.pty."""
