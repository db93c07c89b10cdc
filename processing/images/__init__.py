"""Images from files, bytes and URLs to pixels; what a vision encoder makes of them."""
