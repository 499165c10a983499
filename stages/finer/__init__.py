"""The FINER benchmark (arXiv 2402.16315): what large vision-language models see of fine-grained concepts."""
