"""What models have replied, kept for a while for those of the same tenant who ask the very same again."""
