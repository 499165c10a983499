"""The demo's descriptions, written by a program in place of a language model."""
