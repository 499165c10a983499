"""The pipeline: one package a stage, in the order in which data flows."""
