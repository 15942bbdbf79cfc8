"""What the other rooms share and that is no mathematics: checks, files, processes, ranks."""
