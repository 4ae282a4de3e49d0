"""Tests of procd.unix: real processes, real pipes, real terminals."""
