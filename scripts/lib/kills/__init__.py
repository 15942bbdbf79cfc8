"""Kills training runs at random moments, resumes them, and compares them with an undisturbed run (``command``)."""
