"""The demo's birds: species, drawings and descriptions."""
