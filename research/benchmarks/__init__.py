"""Measurements against other libraries, each one command."""
