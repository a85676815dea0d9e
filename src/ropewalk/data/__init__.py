"""Files of questions: the official ones fetched, others built. Nothing here loads a model."""
