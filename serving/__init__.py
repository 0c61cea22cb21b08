"""The service: knows `ssad.bundle` and the registry, nothing of training."""
