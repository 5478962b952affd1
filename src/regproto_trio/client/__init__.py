"""The public calls, each for one push."""
