"""Pictures, pages and numbers: SVG, HTML, Markdown, and how scores are written. Values in, text out."""
