"""Shared code without mathematics: checks, files, processes, ranks."""
