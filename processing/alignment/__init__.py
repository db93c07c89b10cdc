"""What a model aligned: measured, drawn, and shown as a page."""
