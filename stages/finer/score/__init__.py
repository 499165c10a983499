"""finer.score: answers -> exact match, F1 and their intervals."""
