"""What a person looks at: pictures of boxes, curves, and reports as single HTML files."""
