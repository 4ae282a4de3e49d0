"""Terminals: sessions, who is attached, what is typed, recordings."""
