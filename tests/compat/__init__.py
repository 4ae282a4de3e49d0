"""Clients that others have written, unmodified, against the real daemon."""
