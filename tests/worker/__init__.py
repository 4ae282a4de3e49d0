"""Tests of what runs in the user's processes, in ones of their own where it changes them."""
