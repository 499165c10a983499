"""finer.report: tables, plots and pictures."""
