"""What people read: the terminal's table, a run as a document, Markdown, HTML, annotations, the live line."""
