"""The demo's CLIP: how it was trained."""
