"""What a model aligned: measured, plotted, and shown as a page."""
