"""Readers of published weights; each returns plain NumPy arrays and never runs code from the file."""
