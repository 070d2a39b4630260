"""Readers of published data sets' files, each in exactly the format it ships in."""
