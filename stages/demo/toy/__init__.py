"""The toy LVLM: a tiny LLaVA-architecture model that is trained on drawings."""
