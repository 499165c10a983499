"""Birds of no species of the demo, for the toy LVLM to learn to see on."""
