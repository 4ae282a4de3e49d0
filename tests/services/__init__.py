"""Tests of procd.services: who may do what, and the record of it."""
