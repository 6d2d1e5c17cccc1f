"""Rivals that answer "how good is this mask" behind one protocol."""
