"""finer.align: the method `attrseek`, a row beside `bifta`."""
