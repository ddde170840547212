"""The nodes of the pipeline, one file each."""
