"""Processes: starting, watching, reading, signalling and ending them. No sessions, no HTTP."""
