"""settings: `params.yaml` -> what each stage is set to for a data set."""
