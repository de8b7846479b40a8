"""What a model server is configured with, and how labels move between versions."""
