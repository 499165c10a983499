"""refine: descriptions -> de-duplicated, ranked, embedded texts."""
