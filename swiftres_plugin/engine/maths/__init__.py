"""Room 1: pure functions of arrays and tensors. Nothing here knows of files, devices or settings."""
