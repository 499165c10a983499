"""share: handing the artifacts of a data set and model to others as a Hugging Face dataset."""
