"""Tests of procd.services.interpreter."""
