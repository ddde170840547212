"""Published weights of other projects, known by the names of their tensors, as checkpoints."""
