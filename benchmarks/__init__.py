"""Measurements of speed and memory; each module is a command that prints a table and records its figures."""
