"""score: texts and views -> predictions and metrics."""
