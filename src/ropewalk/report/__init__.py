"""What a person sees of a run: figures drawn from records. Nothing here evaluates a model or loads torch."""
