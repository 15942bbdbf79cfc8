"""Kill training runs at random moments, resume them, compare with a run that was left alone (``command``)."""
