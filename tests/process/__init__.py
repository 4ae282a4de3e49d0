"""Tests of procd.process: real processes, real pipes, real terminals."""
