"""The studio: a page on this machine that shows what scaling factors do to a loaded model, and lets a person steer."""
