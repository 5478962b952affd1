"""Sources of pushes: files, layers, images and artifacts, and the plans made of them. For every driver."""
