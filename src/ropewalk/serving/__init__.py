"""Plugins that let serving engines honour a checkpoint's `rope_layer_factors`."""
