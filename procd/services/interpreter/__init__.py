"""Interpreter contexts: a Python namespace each, in a process of its own."""
