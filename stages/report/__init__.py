"""Metrics and predictions -> tables, plots and pictures of kept and rejected boxes."""
