"""The evaluation engine: prompts in, verdicts and likelihoods of their answers out."""
