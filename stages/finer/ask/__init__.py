"""finer.ask: the questions to an LVLM -> its answers."""
