"""Knowledge that was asked of a teacher once and is kept on disk, image by image."""
