"""What leaves a run for use elsewhere: checkpoints that carry their factors. Reads and writes, never evaluates."""
